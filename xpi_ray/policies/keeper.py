"""The plans that a router goes by: the newest book it was given, or the safe static plan.

scheduler ─ push ─┐
policy store ─ pull ┴─► PlanKeeper ─► plan of a request's SLO class
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xpi_ray.errors import PlanError
from xpi_ray.policies.plan import Plan, PlanBook, SloClass


class PlanKeeper:
    """Holds one book at a time and forgets it when it is older than its lifetime.

    Args:
        static: The plan to fall back to; its version is 0.
        classes: The SLO classes, in any order; at least one.
        num_blocks: N, which every plan must fit.
        num_levels: Rungs of the codec ladder.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        static: Plan,
        classes: Sequence[SloClass],
        num_blocks: int,
        num_levels: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        static.check(num_blocks, num_levels)
        self._static = static
        self._classes = sorted(classes, key=lambda slo: slo.deadline_ms)
        self._deadlines_ms = np.array([slo.deadline_ms for slo in self._classes])
        self._num_blocks = num_blocks
        self._num_levels = num_levels
        self._clock = clock
        self._book: PlanBook | None = None
        self._expires_s = 0.0

    @property
    def version(self) -> int:
        """Of the newest book it has taken, 0 before any; the next one must be higher."""
        return self._book.version if self._book else 0

    def adopt(self, book: PlanBook, age_s: float = 0.0) -> int:
        """Take a book that is newer than the one in hand; return the version now in hand.

        Args:
            book: The plans.
            age_s: Time since they were decided, which counts towards their lifetime.

        Raises:
            PlanError: A plan does not fit the network, or a class has none.
        """
        missing = {slo.name for slo in self._classes} - set(book.plans)
        if missing:
            raise PlanError(f"the book has no plan for {', '.join(sorted(missing))}")
        for plan in book.plans.values():
            plan.check(self._num_blocks, self._num_levels)
        if book.version > self.version:
            self._book = book
            self._expires_s = self._clock() + book.lifetime_s - age_s
        return self.version

    def plan_for(self, deadline_ms: float) -> tuple[str, Plan]:
        """The SLO class of a deadline and its plan; the tightest class takes shorter ones too."""
        slo = self._classes[int(class_index(self._deadlines_ms, deadline_ms))]
        if self._book is None or self._clock() > self._expires_s:
            return slo.name, self._static
        return slo.name, self._book.plans[slo.name]


def class_index(classes_ms: NDArray[np.float64], deadline_ms: ArrayLike) -> NDArray[Any]:
    """The SLO class of each deadline: the last that is no longer, or the first of all.

    Args:
        classes_ms: Deadlines of the classes, rising.
        deadline_ms: One or more, any shape.
    """
    last = np.searchsorted(classes_ms, deadline_ms, side="right") - 1
    index: NDArray[Any] = np.maximum(last, 0)
    return index
