import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.inference.pace import MEMORY, Pace


def test_the_profile_is_believed_at_first():
    """Before any block ran, each is expected to take what the profile says."""
    profile = [1.0, 2.0, 3.0]
    pace = Pace(profile)
    assert [pace.expected_ms(block) for block in (1, 2, 3)] == profile
    pace.observe(1, 100.0)
    assert profile == [1.0, 2.0, 3.0]


def test_one_slow_run_counts_a_tenth():
    """An observation moves its own block's mean by its weight, and no other's."""
    pace = Pace([10.0, 10.0])
    pace.observe(2, 20.0)
    assert pace.expected_ms(1) == 10.0
    assert pace.expected_ms(2) == pytest.approx(10 + 10 * MEMORY)


@given(st.floats(0.01, 1e3), st.floats(0.01, 1e3))
def test_a_lasting_change_is_learned(before_ms, after_ms):
    """Whatever it expected, a hundred runs of another time convince it."""
    pace = Pace([before_ms])
    for _ in range(100):
        pace.observe(1, after_ms)
        between = sorted([before_ms, after_ms])
        assert between[0] * (1 - 1e-9) <= pace.expected_ms(1) <= between[1] * (1 + 1e-9)
    assert abs(pace.expected_ms(1) - after_ms) <= 1e-4 * abs(before_ms - after_ms) + 1e-9 * after_ms
