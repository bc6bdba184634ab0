import numpy as np
import pytest

from benchmarks.preemption import Preemptions, record

SEEN = Preemptions(np.array([0.0, 10.0, 30.0, 50.0]), np.array([2.0, 15.0, 31.0, 55.0]))


def test_a_stop_is_when_the_processor_is_taken_next():
    """A request that begins while the job runs is stopped at the next pause, none begins in one."""
    stops_ms = SEEN.stops_ms(20_000, np.random.default_rng(0))
    running_ms = (10 - 2) + (30 - 15) + (50 - 31)
    assert len(stops_ms) / 20_000 == pytest.approx(running_ms / (50 - 2), abs=0.01)
    assert stops_ms.min() >= 0
    assert stops_ms.max() <= 19
    assert (stops_ms > 15).mean() == pytest.approx((19 - 15) / running_ms, abs=0.01)


def test_those_that_begin_first_come_first():
    """The first request begins with the first pause's end, so the first stops are before 8 ms."""
    stops_ms = SEEN.stops_ms(1_000, np.random.default_rng(0))
    assert 7.5 < stops_ms[0] <= 8
    assert (np.diff(stops_ms[:120]) < 0).all()


def test_a_competing_load_takes_the_processor():
    """Nearly every photo that the competitor decodes is a pause of the job on the same core."""
    arrivals_ms = np.array([100.0, 200.0, 300.0, 400.0, 500.0])
    seen = record(arrivals_ms)
    assert (seen.ended_ms > seen.began_ms).all()
    assert (seen.began_ms[1:] >= seen.ended_ms[:-1]).all()
    paused = [
        ((seen.ended_ms > due_ms) & (seen.began_ms < due_ms + 90)).any() for due_ms in arrivals_ms
    ]
    assert sum(paused) >= 3
