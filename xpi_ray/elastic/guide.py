"""One request without a deadline: which exit to run next, planned anew after each that ran.

    costs, predictor, stop times ─► Guide ─ next_exit(elapsed) ─► blocks up to it, and that exit
                                      └── saw(exit, confidence) ◄──────┘

EINet (ICDCS'23), slide "Design of EINet": search and update again until the inference is stopped.
"""

from typing import NamedTuple

import numpy as np

from xpi_ray.elastic.planner import Ahead, Floats, Search, exact
from xpi_ray.elastic.predictor import Predictor
from xpi_ray.elastic.stop_times import StopTimes


class Costs(NamedTuple):
    """What a network's parts take on a machine (EINet's "ET-profile")."""

    block_ms: Floats
    """Each block without its exit, (N,)."""
    exit_ms: Floats
    """Each exit, infinite where a block has none, (N,)."""


class Guide:
    """Keeps what one request has shown.

    Args:
        costs: Of its blocks and exits.
        predictor: Tells exits that did not run from those that did.
        stops: When the request may be stopped.
        search: Finds plans.
    """

    def __init__(
        self, costs: Costs, predictor: Predictor, stops: StopTimes, search: Search = exact
    ) -> None:
        self._costs, self._predictor, self._stops, self._search = costs, predictor, stops, search
        self._seen = np.zeros((1, len(costs.block_ms)), np.bool_)
        self._confidence = np.zeros(self._seen.shape, np.float32)
        self._last = 0  # the exit that ran last

    def saw(self, exit_: int, confidence: float) -> None:
        """An exit ran.

        Args:
            exit_: Number of its block, 1..N, above those before.
            confidence: 0..1, calibrated.
        """
        self._last = exit_
        self._seen[0, exit_ - 1], self._confidence[0, exit_ - 1] = True, confidence

    def next_exit(self, elapsed_ms: float) -> int:
        """Number of the block whose exit is to run next, all blocks up to the last that ran done.

        Args:
            elapsed_ms: Since the request began.

        Returns:
            Behind the last that ran; 0 if none is expected to be worth its time.
        """
        ahead = slice(self._last, None)
        held = float(self._confidence[0, self._last - 1]) if self._last else 0.0
        expected = self._predictor(self._confidence, self._seen)[0, ahead].astype(np.float64)
        reach_ms = elapsed_ms + np.cumsum(self._costs.block_ms[ahead])
        plan = self._search(
            Ahead(reach_ms, self._costs.exit_ms[ahead], expected, held), self._stops
        )
        return self._last + 1 + int(plan.argmax()) if plan.any() else 0
