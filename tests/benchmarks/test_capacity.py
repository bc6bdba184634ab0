import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.capacity import LEAST, MOST, STEPS, highest


@given(st.floats(LEAST, MOST))
def test_the_highest_load_is_found_as_closely_as_there_are_steps(limit):
    """It is held, and the next one up is not."""
    found = highest(lambda load: 1.0 if load <= limit else 0.5)
    step = (MOST / LEAST) ** (0.5**STEPS)
    assert found <= limit < found * step * 1.01


def test_each_load_is_tried_once():
    """Runs are dear."""
    tried = []
    highest(lambda load: tried.append(load) or float(load < 1))
    assert len(tried) == len(set(tried)) == STEPS + 1


@pytest.mark.parametrize(("satisfaction", "found"), [(0.9, 0.0), (0.95, MOST)])
def test_nothing_and_everything_are_ends(satisfaction, found):
    """A system that fails at the least load holds none; the most is not searched beyond."""
    assert highest(lambda load: satisfaction) == pytest.approx(found, rel=0.08)
