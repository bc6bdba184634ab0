"""How likely an answer is right, told by its entropy: accuracy without labels.

Outcomes ─► Surety ─► likely_right(exit, entropy) ─► what a live request was worth
"""

import numpy as np
from numpy.typing import NDArray

from xpi_ray.profiles.outcomes import Entropies, Flags, Outcomes

BINS = 20


class Surety:
    """Share of held-out samples that were right, among those about as sure.

    Bins hold equally many samples, so that each share is about as certain. What crossed a link has
    bins of its own, for each partition and level: a loss may make an exit surer than right.

    Args:
        outcomes: Of the network on held-out images.
    """

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._bins: dict[tuple[int, ...], tuple[NDArray[np.float32], NDArray[np.float64]]] = {}

    def likely_right(
        self, exit_: int, entropy: float, crossed: tuple[int, int] | None = None
    ) -> float:
        """The chance that an answer is right, 0..1.

        Args:
            exit_: The exit that answered, 1..N.
            entropy: Its normalised entropy.
            crossed: Level and partition, if it is of a carry that was sent from there.

        Raises:
            IndexError: There is no such exit, level or partition.
        """
        key = (exit_, *(crossed or ()))
        if key not in self._bins:
            at = exit_ - 1
            if crossed is None:
                whole = self._outcomes.entropy[:, at], self._outcomes.correct[:, at]
            else:
                level, partition = crossed
                whole = (
                    self._outcomes.resumed_entropy[level, partition, :, at],
                    self._outcomes.resumed_correct[level, partition, :, at],
                )
            self._bins[key] = _binned(*whole)
        edges, shares = self._bins[key]
        return float(shares[np.searchsorted(edges, entropy, side="right")])


def _binned(entropy: Entropies, correct: Flags) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Where bins begin beside the first, (b - 1,), rising, and the share right in each, (b,)."""
    begins = np.quantile(entropy, np.arange(1, BINS) / BINS, method="lower")
    edges = np.unique(begins[begins > entropy.min()])
    bins = np.searchsorted(edges, entropy, side="right")
    counts = np.bincount(bins)
    return edges, np.bincount(bins, weights=correct) / counts
