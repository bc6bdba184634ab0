"""How sure an exit is.

logits ─► normalised_entropy ─► rule: leave or go on
"""

import math

import numpy as np
from numpy.typing import NDArray


def normalised_entropy(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Entropy of the softmax as a share of its maximum, ln K: 0 is sure, 1 has no idea.

    BranchyNet's measure of confidence (ICPR'16), divided by ln K so that a threshold
    means the same for any number of classes.

    Args:
        logits: Finite, (K,) or (n, K), K at least 2.

    Returns:
        0..1, a scalar for (K,), else (n,).
    """
    # With s = x - max, w = exp(s) and t = Σw: H = ln t - Σ(w·s)/t, where nothing overflows.
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(axis=-1)
    entropy = np.log(total) - (weights * shifted).sum(axis=-1) / total
    share: NDArray[np.float64] = np.minimum(entropy / math.log(logits.shape[-1]), 1.0)
    return share
