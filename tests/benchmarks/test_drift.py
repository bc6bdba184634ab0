import numpy as np
import pytest

from benchmarks.drift import NEAR, WINDOW_S, recovery_s

TIMES_S = np.arange(0, 10, 0.1)


def test_recovery_is_when_a_window_is_good_again():
    """Requests fail from 1 s to 4 s: a window that begins before 4 s may have few that failed."""
    in_time = (TIMES_S < 1) | (TIMES_S >= 4)
    assert recovery_s(TIMES_S, in_time, 1.0, 10.0) == pytest.approx(4 - NEAR * WINDOW_S, abs=0.11)


def test_what_never_goes_wrong_needs_no_recovery():
    """Few misses, spread over the phase, are none."""
    assert recovery_s(TIMES_S, np.arange(100) % 20 > 0, 1.0, 10.0) == 0


@pytest.mark.parametrize("fails_from_s", [0.0, 6.0])
def test_what_never_recovers_takes_the_whole_phase(fails_from_s):
    """Also if it went wrong late, and though the last window is cut short."""
    in_time = fails_from_s > TIMES_S
    assert recovery_s(TIMES_S, in_time, 1.0, 10.0) == 10.0
