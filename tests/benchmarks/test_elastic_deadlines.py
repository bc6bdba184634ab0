import numpy as np
import pytest

from benchmarks.elastic_deadlines import at_deadline


def test_a_deadline_is_as_near_as_the_edge_is_slow():
    """Half of the time an edge that may be slower or quicker has less than the deadline left."""
    stops = at_deadline(10.0, 0.1)
    assert stops.still_running(np.array([10.0]))[0] == pytest.approx(0.5, abs=0.02)
    assert stops.still_running(np.array([10.0 / np.exp(0.1)]))[0] == pytest.approx(0.84, abs=0.02)
    assert stops.still_running(np.array([20.0]))[0] == 0.0
