"""How likely each exit is right, from its logits: the top softmax, set right by a temperature.

    logits of held-out samples, labels ─► fit_temperatures ─► temperatures
    logits of a request, temperatures ─► confidence ─► predictor, planner

Guo et al., "On Calibration of Modern Neural Networks" (ICML'17), section 4.2: one temperature an
exit, of least cross-entropy, makes what an exit says of itself agree with how often it is right.

Letters: n samples, N exits, K classes.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NARROWEST, WIDEST = 0.05, 20.0
"""Temperatures that are looked at."""
HALVINGS = 40


def confidence(logits: NDArray[np.floating], temperature: NDArray[np.floating] | float) -> Floats:
    """The softmax probability of the top class, 1/K..1, of logits (..., K), each divided first.

    Args:
        logits: Finite.
        temperature: Above 0; one for all, or one for each row of logits, (...).
    """
    scaled = logits.astype(np.float64) / np.asarray(temperature, np.float64)[..., None]
    shares: Floats = 1 / np.exp(scaled - scaled.max(-1, keepdims=True)).sum(-1)
    return shares


def fit_temperatures(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Floats:
    """Each exit's temperature, (N,).

    Args:
        logits: Of held-out samples, (n, N, K).
        labels: (n,).
    """
    return np.array([_fit(logits[:, k].astype(np.float64), labels) for k in range(logits.shape[1])])


def _fit(logits: Floats, labels: NDArray[np.integer]) -> float:
    """By bisection of the slope in the inverse temperature, in which cross-entropy is convex."""
    right = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        scaled = logits * inverse
        weights = np.exp(scaled - scaled.max(1, keepdims=True))
        expected = (weights * logits).sum(1) / weights.sum(1)
        return float((expected - right).mean())

    low, high = 1 / WIDEST, 1 / NARROWEST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        if slope(middle) < 0:
            low = middle
        else:
            high = middle
    return float((low * high) ** -0.5)
