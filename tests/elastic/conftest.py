import numpy as np
import pytest
from hypothesis import strategies as st

from xpi_ray.elastic.planner import Ahead
from xpi_ray.elastic.stop_times import StopTimes

SHARES = st.floats(0, 1)
TIMES = st.floats(0.01, 50)


@st.composite
def problems(draw, most=8):
    """What is ahead of a request, and when it may be stopped; sometimes a block has no exit."""
    count = draw(st.integers(1, most))
    each = st.lists(TIMES, min_size=count, max_size=count)
    reach = draw(TIMES) + np.cumsum(draw(each))
    exits = np.array(draw(each))
    missing = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    exits[missing & (np.arange(count) < count - 1)] = np.inf
    confidence = np.array(draw(st.lists(SHARES, min_size=count, max_size=count)))
    ahead = Ahead(reach, exits, confidence, draw(st.sampled_from([0.0, 0.3, 0.9])))
    recorded = draw(st.lists(st.floats(0, 400), min_size=1, max_size=12))
    never = draw(st.integers(0, 3))
    parts = [
        StopTimes.uniform(draw(st.floats(1, 800))),
        StopTimes.recorded(np.array(recorded + [np.inf] * never)),
    ]
    return ahead, StopTimes.mixture(parts, draw(st.sampled_from([(1, 0), (0, 1), (1, 2)])))


@pytest.fixture(scope="session", name="problems")
def strategy_of_problems():
    """The strategy, for tests of several files."""
    return problems
