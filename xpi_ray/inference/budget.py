"""The time left for one request.

A budget is a duration, never a wall-clock time: each process starts one of its own from what the
caller had left, so clocks of different machines are never compared.
"""

import time
from collections.abc import Callable


class Budget:
    """Counts down from what was given when it was made.

    Args:
        given_ms: The time allowed, milliseconds.
        clock: Seconds that never go back.
        spent_ms: What was spent before the budget was made.
    """

    def __init__(
        self,
        given_ms: float,
        clock: Callable[[], float] = time.perf_counter,
        spent_ms: float = 0.0,
    ) -> None:
        self.given_ms = given_ms
        self._clock = clock
        self._started_s = clock() - spent_ms / 1000

    @property
    def spent_ms(self) -> float:
        """Time since the budget was made, milliseconds."""
        return (self._clock() - self._started_s) * 1000

    @property
    def left_ms(self) -> float:
        """What is left, milliseconds; negative when overdrawn."""
        return self.given_ms - self.spent_ms

    def allows(self, cost_ms: float) -> bool:
        """Whether something that takes ``cost_ms`` can still be finished in time."""
        return allows(self.left_ms, cost_ms)


def allows(left_ms: float, cost_ms: float) -> bool:
    """Whether something that takes ``cost_ms`` can be finished in ``left_ms``."""
    return left_ms > cost_ms
