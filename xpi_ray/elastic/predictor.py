"""What exits that have not run would say: how sure each would be, from those that have.

    confidences seen so far ─► predictor ─► confidences of all exits ─► planner

EINet (ICDCS'23), slides "Confidence Score Predictors": a multi-layer perceptron takes the vector of
confidences with zeros for exits unseen and gives the whole vector; a mask keeps what was seen. Here
it is told which exits were seen too, as a skipped exit lies between others, and confidences are
log-odds inside, for nearly all lie close to 1.

Letters: n samples, N exits.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

SUREST = 1e-4
"""Confidences closer than this to 0 or 1 are taken to be so far from it."""
HIDDEN = 64
STEPS = 1500
BATCH = 512
LEARNING_RATE = 3e-3
RUN_SHARES = (0.25, 0.5, 1.0)  # of exits that run, before the first from which on all are skipped


class Predictor(Protocol):
    """Completes confidences."""

    def __call__(self, confidence: Floats, seen: Flags) -> Floats:
        """The chance that each exit is right, 0..1.

        Args:
            confidence: Of every exit, 0..1, (n, N); what it says of exits unseen is not looked at.
            seen: Which have run, (n, N).

        Returns:
            Confidences as they were where seen, elsewhere as expected, (n, N).
        """


def log_odds(confidence: NDArray[np.floating]) -> Floats:
    """ln(c / (1 - c)), finite for any c in 0..1."""
    bounded = np.clip(confidence.astype(np.float64), SUREST, 1 - SUREST)
    return np.log(bounded / (1 - bounded)).astype(np.float32)


def some_exits(count: int, samples: int, rng: np.random.Generator) -> Flags:
    """Exits that may have run at some moment: some of those up to one, (samples, count)."""
    begun = np.arange(count) < rng.integers(count, size=(samples, 1))
    return begun & (rng.random((samples, count)) < rng.choice(RUN_SHARES, size=(samples, 1)))


class MaskedPerceptron(NamedTuple):
    """EINet's predictor: one hidden layer."""

    hidden_weight: Floats
    """(h, 2N): for log-odds of what was seen, and for whether it was."""
    hidden_bias: Floats
    """(h,)."""
    weight: Floats
    """(N, h)."""
    bias: Floats
    """(N,)."""

    def __call__(self, confidence: Floats, seen: Flags) -> Floats:
        """As ``Predictor``."""
        told = np.concatenate([np.where(seen, log_odds(confidence), 0), seen], axis=1)
        hidden = np.maximum(told.astype(np.float32) @ self.hidden_weight.T + self.hidden_bias, 0)
        expected = 1 / (1 + np.exp(-(hidden @ self.weight.T + self.bias)))
        return np.where(seen, confidence, expected).astype(np.float32)

    def to_arrays(self) -> dict[str, Floats]:
        """The weights by name."""
        return dict(self._asdict())

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "MaskedPerceptron":
        """Undo ``to_arrays``.

        Raises:
            ValueError: An array is missing, of another shape, or not finite.
        """
        missing = set(cls._fields) - set(arrays)
        if missing:
            raise ValueError(f"expected the arrays {cls._fields}, {sorted(missing)} are missing")
        found = cls(*(np.asarray(arrays[name], np.float32) for name in cls._fields))
        hidden, exits = len(found.hidden_bias), len(found.bias)
        shapes = ((hidden, 2 * exits), (hidden,), (exits, hidden), (exits,))
        if tuple(array.shape for array in found) != shapes:
            raise ValueError(f"expected arrays of {shapes}, got {[a.shape for a in found]}")
        if not all(np.isfinite(array).all() for array in found):
            raise ValueError("expected finite weights of a predictor")
        return found

    @classmethod
    def fit(
        cls,
        confidence: Floats,
        target: Floats,
        exits: Flags | None = None,
        ran: Flags | None = None,
        seed: int = 0,
    ) -> "MaskedPerceptron":
        """Learn from held-out samples, of which exits at random are hidden.

        Args:
            confidence: Of every exit, 0..1, (n, N).
            target: What to expect of it: the same, or whether it is right, 0..1, (n, N).
            exits: Which blocks have one, (N,); None: all.
            ran: Where exits fuse, which had run when these confidences came, (n, N); the others are
                hidden. None: any may be.
            seed: Of weights, batches and what is hidden.
        """
        count = confidence.shape[1]
        there = np.ones(count, np.bool_) if exits is None else exits
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(2 * count, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, count))
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        weight = torch.from_numpy(there).float()
        for odds, wanted, seen in _batches(log_odds(confidence), target, there, ran, seed):
            logits = network(torch.cat([odds * seen, seen], dim=1))
            losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            loss = (losses * (1 - seen) * weight).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        arrays = (parameter.detach().numpy().copy() for parameter in network.parameters())
        return cls(*arrays)


def _batches(
    odds: Floats, target: Floats, there: Flags, ran: Flags | None, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Log-odds, targets and what is seen."""
    rng = np.random.default_rng(seed)
    count = odds.shape[1]
    for _ in range(STEPS):
        chosen = rng.integers(len(odds), size=BATCH)
        known = some_exits(count, BATCH, rng) & there if ran is None else ran[chosen]
        seen = known.astype(np.float32)
        wanted = target[chosen].astype(np.float32)
        yield torch.from_numpy(odds[chosen]), torch.from_numpy(wanted), torch.from_numpy(seen)
