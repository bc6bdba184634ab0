import numpy as np
import pytest

from benchmarks.estimator import ARRIVALS, ESTIMATORS, MOST_UNDER_WAY, Belief, judge, replay
from xpi_ray.link.traces import Trace


@pytest.fixture(scope="module")
def trace():
    """20 s at 1, 3 and 0 Mbit/s by turns."""
    return Trace("t", 1.0, np.array([1e6, 3e6, 0.0, 1e6] * 5))


class Knowing:
    """An estimator that has read the trace."""

    def __init__(self, trace):
        self._trace = trace

    def observe(self, sample):
        """Nothing to learn."""

    def predict(self, now_s):
        """The truth, as an interval too."""
        truth = self._trace.mean_bps(now_s, now_s + 1)
        return Belief(truth, (truth, truth))


@pytest.mark.parametrize("process", ARRIVALS)
def test_answers_keep_to_the_link(trace, process):
    """No answer within the delay, few frames under way, no more bytes than the trace carries."""
    samples = replay(trace, process, seed=1)
    assert samples == replay(trace, process, seed=1)
    assert min(sample.taken_s for sample in samples) > 0.04
    for sample in samples:
        inside = [s for s in samples if s.sent_s <= sample.sent_s < s.replied_s]
        assert len(inside) <= MOST_UNDER_WAY
    last_s = max(sample.replied_s for sample in samples)
    carried = trace.mean_bps(0, last_s) * last_s
    assert 8 * sum(sample.size_bytes for sample in samples) <= carried


def test_who_knows_the_trace_has_no_error(trace):
    """Every second counts from the 5th until one before the end, save those without capacity."""
    second, sample = judge(trace, replay(trace, "poisson", 1), Knowing(trace))
    assert (second["asked"], sample["asked"]) == ("second", "sample")
    assert second["predictions"] + second["nothing_carried"] == 15
    assert second["nothing_carried"] == 4
    for row in (second, sample):
        assert row["error_median"] == row["error_p90"] == 0
        assert row["within_80"] == 1


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_can_be_judged(trace, name):
    """Each predicts from the start, with finite errors."""
    for row in judge(trace, replay(trace, "bursts", 1), ESTIMATORS[name]()):
        assert 0 <= row["error_median"] <= row["error_p90"] < 1e3
