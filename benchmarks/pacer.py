"""Which rate `tc tbf` must be told, moment by moment, for a link to carry what a trace says.

    trace, now ─► Pacer.rate_bps ─► tbf's rate for the next STEP_S ─► Link

A token bucket is filled anew at each change of its rate (``tbf_change`` in the kernel's
sch_tbf.c), so a busy link carries up to a bucket more at each: at ten changes a second and 1 Mbit/s
that would be a tenth. The pacer counts what its rates let through, and goes by the difference.
"""

from xpi_ray.link.traces import Trace

STEP_S = 0.1
"""The trace is followed in steps of this length."""
HORIZON_S = 1.0  # over which a difference is made up for
NEAR = 0.02  # changes of less are not made, nor those that bring less than a bucket
LEAST_BPS = 100.0  # tbf knows no 0; a frame of Ethernet takes two minutes at this
FRAME_BYTES = 1514  # the largest, with Ethernet's header
BUCKET_BYTES = 1600  # the least that lets each frame pass
BUCKET_S = 0.002  # what a bucket holds of a quick link, so that a late timer loses nothing


def bucket_bytes(rate_bps: float) -> int:
    """How large a bucket a link of this rate has."""
    return max(BUCKET_BYTES, round(rate_bps * BUCKET_S / 8))


def bonus_bits(rate_bps: float) -> float:
    """What a change to this rate lets through at once if the link is busy, in the mean.

    The next frame waited for the bucket to hold all of it, so half a frame was there.
    """
    return 8 * (bucket_bytes(rate_bps) - FRAME_BYTES / 2)


class Pacer:
    """Follows one trace; times are seconds since it began.

    Args:
        trace: What the link can carry.
        start_s: Where in the trace to begin.
    """

    def __init__(self, trace: Trace, start_s: float = 0.0) -> None:
        self._trace, self._start_s = trace, start_s
        self._rate_bps = 0.0
        self._now_s = 0.0
        self._ahead_bits = 0.0
        """What a busy link has carried beyond the trace."""

    def rate_bps(self, now_s: float) -> float:
        """The rate from now on; called again after about ``STEP_S``.

        Args:
            now_s: Rising from call to call.
        """
        if now_s > self._now_s:
            due = self._trace.mean_bps(self._start_s + self._now_s, self._start_s + now_s)
            self._ahead_bits += (self._rate_bps - due) * (now_s - self._now_s)
            self._now_s = now_s
        begin_s = self._start_s + now_s
        mean_bps = self._trace.mean_bps(begin_s, begin_s + STEP_S)
        wanted_bps = max(mean_bps - self._ahead_bits / HORIZON_S, LEAST_BPS)
        bonus = bonus_bits(wanted_bps)
        if abs(wanted_bps - self._rate_bps) > max(NEAR * wanted_bps, bonus / HORIZON_S):
            self._rate_bps = wanted_bps
            self._ahead_bits += bonus
        return self._rate_bps
