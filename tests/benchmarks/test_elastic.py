import numpy as np
import pytest

from benchmarks.elastic import ends_ms, planned, rights, spread, until_sure
from xpi_ray.elastic.guide import Costs
from xpi_ray.elastic.stop_times import StopTimes

COSTS = Costs(np.array([1.0, 2.0, 3.0]), np.array([0.5, np.inf, 1.0]))


def test_ends_are_blocks_and_the_exits_that_ran():
    """An exit ends when all blocks up to it and all exits that ran are done."""
    assert ends_ms([0, 2], COSTS) == pytest.approx([1.5, 7.5])
    assert ends_ms([2], COSTS) == pytest.approx([7.0])


def test_the_share_of_right_answers_is_that_of_drawn_stops():
    """What is summed over intervals is what many drawn stops find in hand."""
    rng = np.random.default_rng(0)
    correct = rng.random((20, 3)) < 0.6
    stops = StopTimes.uniform(10)
    found = list(rights([[0, 2]] * 20, correct, COSTS, stops))
    drawn = rng.uniform(0, 10, 200_000)
    hand = np.searchsorted(ends_ms([0, 2], COSTS), drawn, side="right")
    for value, right in zip(found, correct, strict=True):
        says = np.array([False, right[0], right[2]])
        assert value == pytest.approx(says[hand].mean(), abs=0.01)


def test_nothing_that_runs_is_never_right():
    """A plan without exits has no answer at any stop."""
    assert list(rights([[]], np.ones((1, 3), np.bool_), COSTS, StopTimes.uniform(10))) == [0.0]


def test_until_sure_ends_with_the_first_sure_exit():
    """Exits run in order up to the first that is sure enough, or all of them."""
    strategy = until_sure(0.9, [0, 1, 2])
    assert list(strategy(np.array([0.5, 0.95, 0.99]))) == [0, 1]
    assert list(strategy(np.array([0.5, 0.6, 0.7]))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.25, [3, 7]), (0.5, [1, 3, 5, 7]), (1, range(8))]
)
def test_a_share_of_the_exits_is_spread_evenly(share, expected):
    """Of eight exits a quarter is every fourth, and the last is always among them."""
    assert spread(share, list(range(8))) == list(expected)


def test_a_plan_looks_at_exits_only_once_they_ran():
    """The planner is shown nothing of exits that lie ahead."""
    shown = []

    def spy(confidence, seen):
        shown.append(np.where(seen, confidence, -1).tolist())
        return np.where(seen, confidence, [[0.5, 0.0, 0.9]])

    ran = planned(COSTS, spy, StopTimes.uniform(20))(np.array([0.4, 0.7, 0.8], np.float32))
    assert list(ran) == [0, 2]
    assert shown[0] == [[-1, -1, -1]]
    assert shown[1] == [[pytest.approx(0.4), -1, -1]]
    assert len(shown) == 2
