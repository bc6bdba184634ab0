"""What a request is worth: in time, right, and cheap for the edge.

request's end, Weights ─► utility ─► reward of the environment, forecasts, benchmarks
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from xpi_ray.config import Frozen

COST_UNIT_MS = 100.0


class Weights(Frozen):
    """What each part of the utility counts."""

    satisfaction: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of an answer in time."""
    accuracy: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of its being right."""
    edge_cost: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Of 100 ms of work at the edge."""

    def utility(
        self, in_time: ArrayLike, right: ArrayLike, edge_ms: ArrayLike
    ) -> NDArray[np.float64]:
        """The utility of requests; a right answer that is late is worth nothing.

        Args:
            in_time: Whether, or how likely, each was answered by its deadline, 0..1.
            right: Likewise, whether that answer was right.
            edge_ms: Blocks and encoding at the edge.
        """
        value = np.asarray(in_time) * (self.satisfaction + self.accuracy * np.asarray(right))
        cost: NDArray[np.float64] = self.edge_cost * np.asarray(edge_ms) / COST_UNIT_MS
        return np.asarray(value - cost, np.float64)
