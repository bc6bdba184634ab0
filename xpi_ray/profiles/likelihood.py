"""How likely each sample's exits are right, by how sure all of them are: logistic regression.

Outcomes (flags) ─► likely ─► Outcomes (chances) ─► simulation for training

Whether one image happened to be right at one exit is chance, which no policy can know and which
hides what its plans are worth.
"""

import numpy as np
from numpy.typing import NDArray

from xpi_ray.profiles.outcomes import Entropies, Outcomes, Rights

RIDGE = 1.0
NEWTON_STEPS = 8
LEAST_ENTROPY = 1e-3  # beyond which an exit is as sure as any

Chances = NDArray[np.float32]


def likely(outcomes: Outcomes) -> Outcomes:
    """The same samples with the chance of being right, 0..1 (float32), in place of each flag.

    The features are the logits of the entropies at all exits, so whatever thresholds let through is
    accounted for; what was lost on a link is, too, as each level and partition is fitted by itself.
    """
    whole = _chances(outcomes.entropy, outcomes.correct)
    levels, partitions, crossed, _ = outcomes.resumed_correct.shape
    resumed = np.broadcast_to(whole[:crossed], outcomes.resumed_correct.shape).copy()
    for level in range(levels):
        for partition in range(1, partitions):
            entropy = outcomes.resumed_entropy[level, partition]
            correct = outcomes.resumed_correct[level, partition]
            after = slice(partition, None)
            resumed[level, partition, :, after] = _chances(entropy, correct[:, after])
    return outcomes._replace(correct=whole, resumed_correct=resumed)


def _chances(entropy: Entropies, correct: Rights) -> Chances:
    """Of each column of ``correct`` (n, ·), by the entropies (n, N)."""
    bounded = entropy.astype(np.float64).clip(LEAST_ENTROPY, 1 - LEAST_ENTROPY)
    logits = np.log(bounded / (1 - bounded))
    logits = (logits - logits.mean(0)) / np.maximum(logits.std(0), 1e-9)
    features = np.column_stack([np.ones(len(logits)), logits])
    found = [_fitted(features, column) for column in correct.T.astype(np.float64)]
    return np.stack(found, axis=1, dtype=np.float32)


def _fitted(features: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chances by ridge logistic regression, found by Newton's method; the intercept is free."""
    penalty = RIDGE * np.eye(features.shape[1])
    penalty[0, 0] = 1e-6  # as good as free, and solvable where all are right
    weights = np.zeros(features.shape[1])
    for _ in range(NEWTON_STEPS):
        chances = _logistic(features @ weights)
        slope = features.T @ (chances - right) + penalty @ weights
        curvature = (features.T * (chances * (1 - chances))) @ features + penalty
        weights -= np.linalg.solve(curvature, slope)
    return _logistic(features @ weights)


def _logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    chances: NDArray[np.float64] = 1 / (1 + np.exp(-values.clip(-15, 15)))
    return chances
