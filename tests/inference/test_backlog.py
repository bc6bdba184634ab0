import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.inference.backlog import Backlog, turn_ms


def test_nothing_is_known_before_the_first():
    """A queue of unknown turns takes no time; the first turn tells all that is known then."""
    backlog = Backlog()
    backlog.enter()
    assert (backlog.wait_ms, backlog.turn_ms) == (0, 0)
    backlog.replied(1.0, 1.5)
    backlog.leave()
    backlog.enter()
    backlog.enter()
    assert (backlog.wait_ms, backlog.turn_ms) == (1_000, 500)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=20))
def test_a_turn_lasts_from_the_one_before(requests):
    """Of a queue in order of arrival, turns are what the server took for each, wait left out."""
    came_s = free_s = left_s = 0.0
    for apart_s, taken_s in requests:
        came_s += apart_s
        free_s = max(free_s, came_s) + taken_s
        assert turn_ms(came_s, left_s, free_s) == pytest.approx(1000 * taken_s)
        left_s = free_s


def test_what_did_not_come_makes_turns_no_shorter():
    """A request that was given up tells only how long its turn lasted at least."""
    backlog = Backlog()
    backlog.replied(0.0, 0.1)
    backlog.timed_out(0.1, 0.12)
    assert backlog.turn_ms == pytest.approx(100)
    backlog.timed_out(0.1, 1.1)
    assert 100 < backlog.turn_ms < 1_000
    assert math.isfinite(backlog.turn_ms)
