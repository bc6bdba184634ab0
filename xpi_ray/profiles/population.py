"""Images to judge plans and to train policies by: what crossed every link stands for all images.

    Outcomes ─► likely: chances for flags ─► population: as many as all, alike in what counts

Whether one image happened to be right at one exit is chance, which no policy can know and which
hides what its plans are worth; and whether those that crossed happened to be easier than the others
is chance, too.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xpi_ray.exits.rule import first_sure_exit
from xpi_ray.profiles.outcomes import Entropies, Outcomes, Rights

RIDGE = 1.0
NEWTON_STEPS = 8
LEAST_ENTROPY = 1e-3  # beyond which an exit is as sure as any

Array = NDArray[np.float64]
Chances = NDArray[np.float32]


def population(outcomes: Outcomes, thresholds: Sequence[tuple[float, ...]]) -> Outcomes:
    """As many samples as ``outcomes`` has that all crossed every link, with ``likely`` chances.

    Each is one of those that crossed, some more often than others, so that the mean exit at which
    each set of thresholds leaves, and how often rightly, is that of all of ``outcomes`` (raking;
    Deville and Särndal, "Calibration Estimators in Survey Sampling", 1992).

    Args:
        outcomes: On held-out images.
        thresholds: Sets of N thresholds.
    """
    count, crossed = len(outcomes.entropy), outcomes.resumed_correct.shape[2]
    some = likely(
        outcomes._replace(entropy=outcomes.entropy[:crossed], correct=outcomes.correct[:crossed])
    )
    wanted = _facts(outcomes.entropy, outcomes.correct, thresholds).mean(0)
    weights = _raked(_facts(some.entropy, some.correct, thresholds), wanted)
    places = (np.arange(count) + 0.5) / count
    drawn = np.searchsorted(np.cumsum(weights), places).clip(max=crossed - 1)
    return some._replace(
        entropy=some.entropy[drawn],
        correct=some.correct[drawn],
        resumed_entropy=some.resumed_entropy[:, :, drawn],
        resumed_correct=some.resumed_correct[:, :, drawn],
    )


def likely(outcomes: Outcomes) -> Outcomes:
    """The same samples with the chance of being right, 0..1 (float32), in place of each flag.

    By ridge logistic regression on the logits of the entropies at all exits, so whatever thresholds
    let through is accounted for; what was lost on a link is, too, as each level and partition is
    fitted by itself. Where a block has no exit, there is no chance.
    """
    exits = np.flatnonzero(outcomes.exits)
    whole = np.zeros(outcomes.correct.shape, np.float32)
    whole[:, exits] = _chances(outcomes.entropy[:, exits], outcomes.correct[:, exits])
    levels, partitions, crossed, _ = outcomes.resumed_correct.shape
    resumed = np.broadcast_to(whole[:crossed], outcomes.resumed_correct.shape).copy()
    for level in range(levels):
        for partition in range(1, partitions):
            entropy = outcomes.resumed_entropy[level, partition][:, exits]
            correct = outcomes.resumed_correct[level, partition]
            after = exits[exits >= partition]
            resumed[level, partition][:, after] = _chances(entropy, correct[:, after])
    return outcomes._replace(correct=whole, resumed_correct=resumed)


def _facts(entropy: Entropies, correct: Rights, thresholds: Sequence[tuple[float, ...]]) -> Array:
    """What the population is to agree in, of each sample (n, ·)."""
    columns = []
    for limits in thresholds:
        exits = first_sure_exit(entropy, np.array(limits))
        columns += [exits, correct[np.arange(len(exits)), exits - 1]]
    return np.column_stack(columns).astype(np.float64)


def _raked(facts: Array, wanted: Array) -> Array:
    """Weights that sum to 1 with which the facts' means are as wanted, as even as can be."""
    scale = np.maximum(facts.std(0), 1e-9)
    away = (facts - wanted) / scale
    tilt = np.zeros(len(wanted))
    for _ in range(NEWTON_STEPS):
        weights = _normalised(away @ tilt)
        mean = weights @ away
        spread = (away.T * weights) @ away - np.outer(mean, mean)
        tilt -= np.linalg.solve(spread + 1e-6 * np.eye(len(tilt)), mean)
    return _normalised(away @ tilt)


def _normalised(logarithms: Array) -> Array:
    weights = np.exp(logarithms - logarithms.max())
    normalised: Array = weights / weights.sum()
    return normalised


def _chances(entropy: Entropies, correct: Rights) -> Chances:
    """Of each column of ``correct`` (n, ·), by the entropies (n, N)."""
    bounded = entropy.astype(np.float64).clip(LEAST_ENTROPY, 1 - LEAST_ENTROPY)
    logits = np.log(bounded / (1 - bounded))
    logits = (logits - logits.mean(0)) / np.maximum(logits.std(0), 1e-9)
    features = np.column_stack([np.ones(len(logits)), logits])
    found = [_fitted(features, column) for column in correct.T.astype(np.float64)]
    return np.stack(found, axis=1, dtype=np.float32)


def _fitted(features: Array, right: Array) -> Array:
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


def _logistic(values: Array) -> Array:
    chances: Array = 1 / (1 + np.exp(-values.clip(-15, 15)))
    return chances
