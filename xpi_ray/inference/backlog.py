"""What waits at the edge, as a router sees it from outside.

    Flow ─ enter, leave ─► Backlog ─► wait_ms, turn_ms ─► Flow: is there time for one more?

An edge that has too much to do cannot say so in time: to read a request takes it time too.
"""

import math

from xpi_ray.inference.pace import renewed


class Backlog:
    """Requests that are there, and what each of them took of late."""

    def __init__(self) -> None:
        self._here = 0
        self._left_s = -math.inf
        self.turn_ms = 0.0
        """What one request is expected to keep the edge busy; 0 before any is known."""

    @property
    def wait_ms(self) -> float:
        """What those that are there are expected to take."""
        return self._here * self.turn_ms

    def enter(self) -> None:
        """One is on its way there."""
        self._here += 1

    def leave(self) -> None:
        """One is there no more."""
        self._here -= 1

    def replied(self, entered_s: float, now_s: float) -> None:
        """One of them was answered, in order of arrival."""
        self.turn_ms = renewed_turn(self.turn_ms, turn_ms(entered_s, self._left_s, now_s))
        self._left_s = now_s

    def timed_out(self, entered_s: float, now_s: float) -> None:
        """One was not, until it was given up: the turn before it lasts."""
        lasting_ms = turn_ms(entered_s, self._left_s, now_s)
        self.turn_ms = renewed_turn(self.turn_ms, max(lasting_ms, self.turn_ms))


def turn_ms(entered_s: float, left_s: float, now_s: float) -> float:
    """What a request had the edge for.

    Args:
        entered_s: When it came.
        left_s: When the one before it was answered.
        now_s: When it was.
    """
    return 1000 * (now_s - max(entered_s, left_s))


def renewed_turn(expected_ms: float, taken_ms: float) -> float:
    """What is expected of a turn after one more; the first tells all that is known."""
    return renewed(expected_ms, taken_ms) if expected_ms else taken_ms
