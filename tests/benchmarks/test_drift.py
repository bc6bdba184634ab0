import numpy as np
import pytest

from benchmarks import drift


def test_recovery_is_when_a_window_is_as_good_as_usual():
    """Requests fail for the first 4 s of 10; from 4 s on a window has none that failed."""
    times_s = np.arange(0, 10, 0.1)
    recovery_s = drift._recovery_s(times_s, times_s >= 4, 1.0)
    # A window of 3 s may begin while 5 % of it still fail.
    assert recovery_s == pytest.approx(4 - drift.NEAR * drift.WINDOW_S, abs=0.11)


def test_what_never_recovers_takes_the_whole_phase():
    """If no window is as good as usual, the phase's length is told."""
    times_s = np.arange(0, 10, 0.1)
    assert drift._recovery_s(times_s, np.zeros(100, np.bool_), 1.0) == pytest.approx(9.9)
