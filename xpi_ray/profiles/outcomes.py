"""How sure and how right each exit is on held-out images: with and without a link in between.

    network, validation images ─► Outcomes ─► calibration, policies, simulation

Letters: n samples, N exits, L levels, m samples of the part that is resumed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Entropies = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Outcomes(NamedTuple):
    """Entropy and correctness of every exit for each held-out sample.

    The ``resumed`` arrays hold the first m samples again, once for each level and partition: exits
    1..p as they were, later ones computed from the carry that was encoded and decoded after
    block p. Partition 0 sends the image, which loses nothing.
    """

    entropy: Entropies
    """Normalised, (n, N)."""
    correct: Flags
    """(n, N)."""
    resumed_entropy: Entropies
    """(L, N, m, N): level, partition 0..N-1, sample, exit."""
    resumed_correct: Flags
    """(L, N, m, N)."""
    frame_bytes: NDArray[np.float32]
    """Mean size of a frame, (L, N)."""

    def accuracy(self) -> list[float]:
        """Accuracy of each exit over all samples, 0..1."""
        return [float(value) for value in self.correct.mean(0)]

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, as small as their precision allows."""
        return {
            "entropy": self.entropy.astype(np.float16),
            "correct": self.correct.astype(np.uint8),
            "resumed_entropy": self.resumed_entropy.astype(np.float16),
            "resumed_correct": self.resumed_correct.astype(np.uint8),
            "frame_bytes": self.frame_bytes,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> "Outcomes":
        """Undo ``to_arrays``.

        Raises:
            KeyError: An array is missing.
        """
        return cls(
            arrays["entropy"].astype(np.float32),
            arrays["correct"].astype(np.bool_),
            arrays["resumed_entropy"].astype(np.float32),
            arrays["resumed_correct"].astype(np.bool_),
            arrays["frame_bytes"].astype(np.float32),
        )
