"""Simple predictors, which a learned one must beat.

    confidences seen so far ─► predictor ─► confidences of all exits

Letters: n samples, N exits, m held-out samples.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.elastic.predictor import Flags, Floats, log_odds

NEIGHBOURS = 50
NEWTON_STEPS = 20
RIDGE = 1e-3


class ExitMeans(NamedTuple):
    """What each exit says on average, whatever this sample's others said."""

    means: Floats
    """(N,)."""

    @classmethod
    def fit(cls, confidence: Floats, target: Floats) -> "ExitMeans":
        """From targets of held-out samples, (m, N)."""
        del confidence
        return cls(target.mean(0).astype(np.float32))

    def __call__(self, confidence: Floats, seen: Flags) -> Floats:
        """As ``Predictor``."""
        return np.where(seen, confidence, self.means).astype(np.float32)


class RunningMean(ExitMeans):
    """The mean of what the sample's exits said so far; of none, what each says on average."""

    def __call__(self, confidence: Floats, seen: Flags) -> Floats:
        """As ``Predictor``."""
        count = seen.sum(1, keepdims=True)
        so_far = np.where(seen, confidence, 0).sum(1, keepdims=True) / np.maximum(count, 1)
        expected = np.where(count > 0, so_far, self.means)
        return np.where(seen, confidence, expected).astype(np.float32)


class LastLogistic(NamedTuple):
    """A logistic curve of the last exit seen, one for each pair of exits."""

    offset: NDArray[np.float64]
    """(N + 1, N): by the last exit seen, first none."""
    slope: NDArray[np.float64]
    """Likewise, of its log-odds."""

    @classmethod
    def fit(cls, confidence: Floats, target: Floats) -> "LastLogistic":
        """From confidences and targets of held-out samples, (m, N) each."""
        count = confidence.shape[1]
        odds = np.insert(log_odds(confidence), 0, 0, axis=1)
        curves = [
            [_logistic(odds[:, i], target[:, k]) for k in range(count)] for i in range(count + 1)
        ]
        offset, slope = np.moveaxis(np.array(curves), 2, 0)
        return cls(offset, slope)

    def __call__(self, confidence: Floats, seen: Flags) -> Floats:
        """As ``Predictor``."""
        count = seen.shape[1]
        last = np.where(seen, np.arange(1, count + 1), 0).max(1)
        odds = np.insert(log_odds(confidence), 0, 0, axis=1)[np.arange(len(last)), last]
        expected = 1 / (1 + np.exp(-(self.offset[last] + self.slope[last] * odds[:, None])))
        return np.where(seen, confidence, expected).astype(np.float32)


def _logistic(x: NDArray[np.floating], target: NDArray[np.floating]) -> tuple[float, float]:
    """Offset and slope of least cross-entropy, by Newton's method."""
    inputs = np.stack([np.ones(len(x)), x.astype(np.float64)], axis=1)
    found = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        expected = 1 / (1 + np.exp(-inputs @ found))
        slope = inputs.T @ (expected - target) / len(x) + RIDGE * found
        bend = (inputs * (expected * (1 - expected))[:, None]).T @ inputs / len(x)
        found -= np.linalg.solve(bend + RIDGE * np.eye(2), slope)
    return float(found[0]), float(found[1])


class NearestNeighbours(NamedTuple):
    """The mean over held-out samples whose seen exits said nearly the same."""

    odds: Floats
    """Of the held-out samples, (m, N)."""
    target: Floats
    """(m, N)."""

    @classmethod
    def fit(cls, confidence: Floats, target: Floats) -> "NearestNeighbours":
        """Keeps all of them."""
        return cls(log_odds(confidence), target.astype(np.float32))

    def __call__(self, confidence: Floats, seen: Flags) -> Floats:
        """As ``Predictor``."""
        odds, mask = np.where(seen, log_odds(confidence), 0), seen.astype(np.float32)
        # |a - b|² over what is seen: a² is the same for all neighbours.
        distance = mask @ (self.odds**2).T - 2 * odds @ self.odds.T
        count = min(NEIGHBOURS, len(self.odds) - 1)
        nearest = np.argpartition(distance, count, axis=1)[:, :count]
        expected = np.where(
            seen.any(1, keepdims=True), self.target[nearest].mean(1), self.target.mean(0)
        )
        return np.where(seen, confidence, expected).astype(np.float32)
