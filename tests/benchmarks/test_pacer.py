import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pacer import (
    BUCKET_BYTES,
    FRAME_BYTES,
    LEAST_BPS,
    STEP_S,
    Pacer,
    bonus_bits,
    bucket_bytes,
)
from xpi_ray.link.traces import Trace


class TokenBucket:
    """What the kernel's tbf lets through while frames wait all the time: an independent oracle."""

    def __init__(self):
        self.rate_bps, self.tokens_bits, self.sent_bits = 0.0, 0.0, 0.0

    def change(self, rate_bps):
        """A change of the rate fills the bucket, as ``tbf_change`` does."""
        self.rate_bps = rate_bps
        self.tokens_bits = 8.0 * bucket_bytes(rate_bps)
        self.run(0.0)

    def run(self, seconds):
        """Let time pass; whole frames leave."""
        self.tokens_bits += self.rate_bps * seconds
        frames = int(self.tokens_bits // (8 * FRAME_BYTES))
        self.tokens_bits -= frames * 8 * FRAME_BYTES
        self.sent_bits += frames * 8 * FRAME_BYTES


def carried(trace, seconds, late_s=None):
    """Bits that a busy link carries while it is paced, and how often its rate was changed."""
    pacer, bucket, changes, now_s = Pacer(trace), TokenBucket(), 0, 0.0
    steps = round(seconds / STEP_S)
    for step in range(steps):
        rate_bps = pacer.rate_bps(now_s)
        if rate_bps != bucket.rate_bps:
            bucket.change(rate_bps)
            changes += 1
        then_s = min((step + 1) * STEP_S + (late_s[step] if late_s else 0.0), seconds)
        bucket.run(then_s - now_s)
        now_s = then_s
    return bucket.sent_bits, changes


@settings(deadline=None)
@given(
    st.lists(st.floats(0.3, 20.0), min_size=40, max_size=40),
    st.lists(st.floats(0.0, 0.09), min_size=200, max_size=200),
)
def test_a_busy_link_carries_what_the_trace_says(mbps, late_s):
    """Within 5 %, whatever the rates, though every change fills the bucket and steps come late."""
    trace = Trace("any", 0.5, 1e6 * 0.5 * np.array(mbps))
    assert carried(trace, 20.0, late_s)[0] == pytest.approx(20.0 * trace.mean_bps(0, 20), rel=0.05)


def test_without_care_a_slow_link_would_carry_too_much():
    """The oracle sends too much if each step's rate is set as it is: the test above bites."""
    rates_bps = np.resize([0.9e6, 1.1e6], 200)
    bucket = TokenBucket()
    for rate_bps in rates_bps:
        bucket.change(rate_bps)
        bucket.run(STEP_S)
    assert bucket.sent_bits / (rates_bps.sum() * STEP_S) > 1.05


@pytest.mark.parametrize("mbps", [0.05, 1.0, 100.0])
def test_a_constant_link_is_hardly_touched(mbps):
    """A rate that stays is set at most once a second, to make up for the buckets before."""
    bits, changes = carried(Trace("constant", 1.0, np.array([1e6 * mbps])), 20.0)
    assert changes <= 20
    assert bits == pytest.approx(20e6 * mbps, rel=0.05)


def test_a_dead_second_stays_dead():
    """No frame but the one that waited crosses while the trace says 0, and changes stop."""
    pacer = Pacer(Trace("gap", 1.0, np.array([1e6, 0.0, 0.0, 1e6])))
    rates = [pacer.rate_bps(step * STEP_S) for step in range(40)]
    assert set(rates[11:29]) == {LEAST_BPS}
    assert min(rates[:9] + rates[31:]) > 0.5e6


def test_a_trace_may_be_entered_anywhere():
    """Where it begins is told in the trace's own seconds."""
    trace = Trace("step", 1.0, np.array([1e6, 8e6]))
    assert Pacer(trace, 1.0).rate_bps(0.0) == 8e6
    assert Pacer(trace).rate_bps(0.0) == 1e6


@given(st.floats(LEAST_BPS, 1e9))
def test_a_bucket_holds_a_frame_and_a_bonus_is_no_more_than_it(rate_bps):
    """Smaller buckets would block the largest frame for ever."""
    assert bucket_bytes(rate_bps) >= BUCKET_BYTES > FRAME_BYTES
    assert 0 < bonus_bits(rate_bps) < 8 * bucket_bytes(rate_bps)
