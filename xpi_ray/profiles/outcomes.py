"""How sure and how right each exit is on held-out images: with and without a link in between.

    network, validation images ─► Outcomes ─► calibration, policies, simulation

Letters: n samples, N exits, L levels, m samples of the part that is resumed.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Entropies = NDArray[np.float32]
Flags = NDArray[np.bool_]
Rights = NDArray[Any]
"""Flags, or float32 chances, 0..1."""

NO_EXIT = 2.0
"""In the place of an entropy where a block has no exit: never sure, whatever the threshold."""


class Outcomes(NamedTuple):
    """Entropy and correctness of every exit for each held-out sample.

    The ``resumed`` arrays hold the first m samples again, once for each level and partition: exits
    1..p as they were, later ones computed from the carry that was encoded and decoded after
    block p. Partition 0 sends the image, which loses nothing.

    A last level may be of whole images, sent after p exits were tried at the edge: nothing is lost
    then either, and nothing of the edge's work used.

    A block may have no exit. Then its entropies are ``NO_EXIT``, and nothing there is correct.
    """

    entropy: Entropies
    """Normalised, 0..1, or ``NO_EXIT``, (n, N)."""
    correct: Rights
    """(n, N)."""
    resumed_entropy: Entropies
    """(L, N, m, N): level, partition 0..N-1, sample, exit."""
    resumed_correct: Rights
    """(L, N, m, N)."""
    frame_bytes: NDArray[np.float32]
    """Mean size of a frame, (L, N)."""
    images: bool = False
    """Whether the last level is of whole images."""

    @property
    def exits(self) -> Flags:
        """Which blocks have an exit, (N,)."""
        return np.asarray((self.entropy < NO_EXIT).all(0))

    def accuracy(self) -> list[float]:
        """Accuracy of each exit over all samples, 0..1; 0 where there is none."""
        return [float(value) for value in self.correct.mean(0)]

    def with_images(self) -> "Outcomes":
        """The same with a further level, of whole images."""
        count = self.resumed_entropy.shape[2]

        def grown(resumed: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
            level = np.broadcast_to(whole[:count], resumed.shape[1:])
            return np.concatenate([resumed, level[None]])

        size = np.broadcast_to(self.frame_bytes[0, 0], self.frame_bytes.shape[1:])
        return self._replace(
            resumed_entropy=grown(self.resumed_entropy, self.entropy),
            resumed_correct=grown(self.resumed_correct, self.correct),
            frame_bytes=np.concatenate([self.frame_bytes, size[None]]),
            images=True,
        )

    def edge_trusted(self) -> Flags:
        """Where the surer of two exits is right more often than the last one alone, (L, N).

        The two are the last one before the link and the last one of all: what was lost on the link
        may make the latter surer than right. Of images nothing was, and no exit comes with them.
        """
        count, exits = self.resumed_correct.shape[2:]
        trusted = np.zeros((len(self.resumed_entropy), exits), np.bool_)
        for partition in range(1, exits):
            last = self.resumed_correct[:, partition, :, -1]
            surer = self.entropy[:count, partition - 1] < self.resumed_entropy[:, partition, :, -1]
            chosen = np.where(surer, self.correct[:count, partition - 1], last)
            trusted[:, partition] = chosen.sum(1) > last.sum(1)
        if self.images:
            trusted[-1] = False
        return trusted

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, as small as their precision allows.

        Of the resumed ones only what came after a link is kept, as the rest is in the others.
        """
        after = _after_link(self.entropy.shape[1])
        entropy = np.moveaxis(self.resumed_entropy, 1, 2)[..., after]
        correct = np.moveaxis(self.resumed_correct, 1, 2)[..., after]
        return {
            "entropy": self.entropy.astype(np.float16),
            "correct": self.correct.astype(np.uint8),
            "resumed_entropy": entropy.astype(np.float16, order="C"),
            "resumed_correct": np.packbits(correct, axis=-1),
            "frame_bytes": self.frame_bytes,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> "Outcomes":
        """Undo ``to_arrays``.

        Raises:
            KeyError: An array is missing.
            ValueError: One is of another form.
        """
        entropy, correct = (arrays[name] for name in ("entropy", "correct"))
        after = _after_link(entropy.shape[1])
        packed = arrays["resumed_correct"].astype(np.uint8)
        crossed = np.unpackbits(packed, axis=-1, count=int(after.sum())).astype(np.bool_)
        whole = (entropy.astype(np.float32), correct.astype(np.bool_))
        return cls(
            *whole,
            _resumed(whole[0], arrays["resumed_entropy"].astype(np.float32), after),
            _resumed(whole[1], crossed, after),
            arrays["frame_bytes"].astype(np.float32),
        )


def _after_link(exits: int) -> Flags:
    """(N, N): for each partition, 0..N-1, the exits that a carry from there came to."""
    after = np.triu(np.ones((exits, exits), np.bool_))
    after[0] = False  # the image itself crosses, and loses nothing
    return after


def _resumed(whole: NDArray[Any], crossed: NDArray[Any], after: Flags) -> NDArray[Any]:
    """(L, N, m, N) of what all exits said, (n, N), and those after the link, (L, m, ·)."""
    levels, samples, _ = crossed.shape
    if samples > len(whole):
        raise ValueError(f"expected at most {len(whole)} resumed samples, got {samples}")
    shape = (levels, samples, *after.shape)
    resumed = np.broadcast_to(whole[:samples, None], shape).copy()
    resumed[..., after] = crossed
    return np.moveaxis(resumed, 2, 1)
