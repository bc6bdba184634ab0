import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.inference.budget import Budget

TIMES = st.floats(0, 1e5)


@given(given_ms=TIMES, spent_ms=TIMES, start_s=st.floats(-1e6, 1e6), steps=st.lists(TIMES))
def test_what_is_left_is_what_was_given_less_what_was_spent(given_ms, spent_ms, start_s, steps):
    """Wherever the clock stands, only the time that passes on it counts."""
    now_s = [start_s]
    budget = Budget(given_ms, lambda: now_s[0], spent_ms)
    total_ms = spent_ms
    for ms in steps:
        now_s[0] += ms / 1000
        total_ms += ms
    assert budget.spent_ms == pytest.approx(total_ms, abs=1e-3, rel=1e-6)
    assert budget.left_ms == pytest.approx(given_ms - total_ms, abs=1e-3, rel=1e-6)
    assert budget.given_ms == given_ms


def test_a_cost_must_fit_into_what_is_left(clock):
    """A budget allows what ends before it does, and nothing once it is spent."""
    budget = Budget(50.0, clock)
    assert budget.allows(49.9)
    assert not budget.allows(50.1)
    clock.sleep_ms(30)
    assert budget.allows(19.9)
    assert not budget.allows(20.1)
    clock.sleep_ms(30)
    assert budget.left_ms == pytest.approx(-10)
    assert not budget.allows(0)


def test_the_real_clock_runs_forward():
    """By default time passes by itself and never goes back."""
    budget = Budget(1e9)
    assert 0 <= budget.spent_ms <= budget.spent_ms
    assert budget.left_ms <= 1e9
