"""Where to leave: at the first exit whose entropy is at most its threshold, else at the last.

confidence ─► entropy ─► is_sure ─► answer, or the next block
"""

import numpy as np
from numpy.typing import NDArray


def is_sure(entropy: float, threshold: float) -> bool:
    """Whether to leave at an exit, both 0..1; an entropy that is not a number is never sure."""
    return entropy <= threshold


def first_sure_exit(
    entropy: NDArray[np.floating], thresholds: NDArray[np.floating]
) -> NDArray[np.int64]:
    """The exit, 1..N, at which each of n samples leaves.

    Args:
        entropy: Normalised, of every sample at every exit, (n, N).
        thresholds: τ_1..τ_N, (N,). The last one does not matter: no block is left to run.

    Returns:
        (n,).
    """
    sure = entropy <= thresholds
    sure[:, -1] = True
    exits: NDArray[np.int64] = sure.argmax(axis=1) + 1
    return exits
