import numpy as np
import pytest

from benchmarks.elastic import Samples
from benchmarks.elastic_modes import judge
from xpi_ray.elastic.guide import Costs
from xpi_ray.elastic.stop_times import StopTimes

COSTS = Costs(np.array([1.0, 2.0]), np.array([1.0, 1.0]))


def test_modes_are_judged_by_what_is_in_hand_at_the_stop():
    """Exits end at 2 and 5 ms; stops before 10 ms find none, the first, or the second."""
    samples = Samples(np.ones((2, 2), np.float32), np.array([[True, False], [False, True]]))
    runs = {"both": [[0, 1], [0, 1]], "first": [[0], [0]]}
    both, first = judge(runs, samples, COSTS, StopTimes.uniform(10))
    assert both["accuracy"] == pytest.approx((0.3 + 0.5) / 2)
    assert both["answered"] == first["answered"] == pytest.approx(0.8)
    assert first["accuracy"] == pytest.approx(0.8 / 2)
    assert (both["edge_ms"], first["edge_ms"]) == (5, 2)
    assert (both["exits"], first["exits"]) == (2, 1)
