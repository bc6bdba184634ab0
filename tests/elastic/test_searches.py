import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.elastic.planner import Ahead, exact, expectation
from xpi_ray.elastic.searches import MOST_ENUMERATED, SEARCHES, enumeration, greedy, hybrid
from xpi_ray.elastic.stop_times import StopTimes


@given(data=st.data())
@settings(max_examples=100)
def test_no_search_beats_the_exact_one(data, problems):
    """Every search finds a plan of exits that are there, and none a better one than ``exact``."""
    ahead, stops = data.draw(problems())
    best = expectation(exact(ahead, stops), ahead, stops)
    for search in SEARCHES.values():
        found = search(ahead, stops)
        assert found.shape == ahead.reach_ms.shape
        assert expectation(found, ahead, stops) <= best + 1e-12


@given(data=st.data())
def test_enumeration_is_exact(data, problems):
    """The best of all plans is worth what the exact one is."""
    ahead, stops = data.draw(problems())
    found, best = enumeration(ahead, stops), exact(ahead, stops)
    assert expectation(found, ahead, stops) == pytest.approx(expectation(best, ahead, stops))


def test_greedy_can_be_stuck():
    """There is a problem in which adding one exit at a time ends below the best plan."""
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(200):
        reach, exits = np.cumsum(rng.uniform(1, 5, 10)), rng.uniform(0.5, 8, 10)
        ahead = Ahead(reach, exits, rng.uniform(0, 1, 10), 0.0)
        stops = StopTimes.uniform(60)
        best, found = (expectation(s(ahead, stops), ahead, stops) for s in (exact, greedy))
        gaps.append(best - found)
    assert max(gaps) > 0.001


def test_hybrid_enumerates_the_first_exits():
    """Up to six exits the hybrid search is the enumeration."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        reach, exits = np.cumsum(rng.uniform(1, 5, 6)), rng.uniform(0.5, 8, 6)
        ahead = Ahead(reach, exits, rng.uniform(0, 1, 6), 0.0)
        stops = StopTimes.uniform(60)
        one, other = (expectation(s(ahead, stops), ahead, stops) for s in (hybrid, enumeration))
        assert one == pytest.approx(other)


def test_too_many_exits_are_not_enumerated():
    """Enumeration refuses what would take for ever, and says how many it takes."""
    count = MOST_ENUMERATED + 1
    ahead = Ahead(np.arange(1.0, count + 1), np.ones(count), np.linspace(0, 1, count), 0.0)
    with pytest.raises(ValueError, match=f"at most {MOST_ENUMERATED}"):
        enumeration(ahead, StopTimes.uniform(10))
