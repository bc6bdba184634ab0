"""When a request may be stopped, as far as anyone knows.

uniform, recorded or mixed ─► StopTimes: the chance that it still runs at a time ─► planner
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_KNOTS = 257
"""Of a recorded distribution; what it says between two is interpolated."""
LEAST_SPAN_MS = 1e-3
"""Between two knots, so that chances fall steeply at most."""


class StopTimes(NamedTuple):
    """The chance that a request still runs at a time, straight between knots.

    Before the first knot it is 1; behind the last one it stays, and what is left above 0 there is
    the chance that nobody stops the request at all.
    """

    knots_ms: Floats
    """Since the request began, ascending, at least 0, (k,), k at least 2."""
    running: Floats
    """At each knot, 1..0, never rising, the first 1, (k,)."""

    @classmethod
    def uniform(cls, end_ms: float) -> "StopTimes":
        """Any time up to ``end_ms`` is as likely as any other (EINet's evaluation).

        Raises:
            ValueError: The end is below ``LEAST_SPAN_MS``, or not finite.
        """
        if not LEAST_SPAN_MS <= end_ms < np.inf:
            raise ValueError(f"expected a last stop after {LEAST_SPAN_MS} ms or more, got {end_ms}")
        return cls(np.array([0.0, end_ms]), np.array([1.0, 0.0]))

    @classmethod
    def recorded(cls, stops_ms: Floats) -> "StopTimes":
        """As stops came in the past: their quantiles, straight in between.

        Args:
            stops_ms: Since each request began; infinite for one that was never stopped, (n,).

        Raises:
            ValueError: There are none, or one is below 0 or no number.
        """
        stops = np.sort(np.asarray(stops_ms, np.float64))
        if not len(stops) or not (stops >= 0).all():
            raise ValueError(
                f"expected stops at 0 ms or later, at least one of them, got {stops_ms!r}"
            )
        ended = stops[stops < np.inf]
        ended_share = len(ended) / len(stops)
        if not len(ended):
            return cls(np.array([0.0, LEAST_SPAN_MS]), np.ones(2))
        running = 1 - ended_share * np.linspace(0, 1, min(max(len(ended), 2), MOST_KNOTS))
        quantiles = np.quantile(ended, (1 - running) / ended_share)
        places = np.maximum(np.round(quantiles / LEAST_SPAN_MS), 1)
        _, first, count = np.unique(places, return_index=True, return_counts=True)
        last, tied = first + count - 1, first[count > 1]
        # Where several fall together the chance falls within the last span before.
        knots = np.concatenate([[0], places[last], places[tied] - 1])
        values = np.concatenate([[1.0], running[last], running[tied]])
        knots, chosen = np.unique(knots, return_index=True)
        return cls(LEAST_SPAN_MS * knots, values[chosen])

    @classmethod
    def mixture(cls, parts: Sequence["StopTimes"], weights: Sequence[float]) -> "StopTimes":
        """One of several, each as likely as its weight says.

        Raises:
            ValueError: There are no parts, or not as many weights, or weights below 0 or all 0.
        """
        shares = np.asarray(weights, np.float64)
        if not len(parts) or len(shares) != len(parts):
            raise ValueError(f"expected a weight a part, got {len(shares)} for {len(parts)} parts")
        if not ((shares >= 0).all() and 0 < shares.sum() < np.inf):
            raise ValueError(f"expected weights of at least 0, one above, got {list(weights)}")
        knots = np.unique(np.concatenate([part.knots_ms for part in parts]))
        running = np.stack([part.still_running(knots) for part in parts])
        return cls(knots, shares @ running / shares.sum())

    def still_running(self, at_ms: Floats) -> Floats:
        """The chance at each of these times, 1..0."""
        return np.asarray(np.interp(at_ms, self.knots_ms, self.running), np.float64)


@njit(cache=True)
def chance(at_ms: float, stops: StopTimes) -> float:
    """``StopTimes.still_running`` of one time, compiled."""
    knots_ms, running = stops.knots_ms, stops.running
    if at_ms <= knots_ms[0]:
        return float(running[0])
    last = len(knots_ms) - 1
    if at_ms >= knots_ms[last]:
        return float(running[last])
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        if knots_ms[middle] <= at_ms:
            low = middle
        else:
            high = middle
    share = (at_ms - knots_ms[low]) / (knots_ms[high] - knots_ms[low])
    return float(running[low] + share * (running[high] - running[low]))
