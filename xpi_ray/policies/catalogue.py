"""Every plan worth considering, and what outcomes say of it.

Outcomes, sets of thresholds ─► candidates ─► policies that compare plans

Only some of the samples crossed a link. What the link changes is seen in these; what would have
been without it is known of all, so how lucky these were is known too, and taken off (the sampling
literature's difference estimator). Plans that cross and plans that stay are then compared on the
same samples.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.errors import PlanError
from xpi_ray.exits.rule import first_sure_exit
from xpi_ray.policies.base import Decision
from xpi_ray.profiles.outcomes import Outcomes, Rights


class Candidate(NamedTuple):
    """A plan, and what it does to samples, by the held-out ones."""

    decision: Decision
    strictness: int
    """Index of the thresholds, 0 the strictest."""
    shares: NDArray[np.float64]
    """Of samples that leave at each exit, (N,); they sum to 1."""
    accuracies: NDArray[np.float64]
    """Of the samples that leave at each exit, (N,); 0 where none does."""
    edge_accuracy: float
    """Of those that go on to the cloud, if the edge's last exit answered instead."""
    frame_bytes: float

    @property
    def accuracy(self) -> float:
        """Of all samples, when every exit is in time."""
        return float(self.shares @ self.accuracies)


def candidates(
    outcomes: Outcomes,
    thresholds: Sequence[tuple[float, ...]],
    least_partition: int = 1,
    level_tolerance: float = 1.0,
) -> list[Candidate]:
    """Every partition from ``least_partition`` on with every set of thresholds and every level.

    Args:
        outcomes: Of the network on held-out images.
        thresholds: Sets of N thresholds, the strictest first.
        least_partition: Blocks that must run at the edge, 0..N.
        level_tolerance: Accuracy that a level may cost beside level 0; other levels are left out.

    Raises:
        PlanError: ``least_partition`` is beyond the last block.
    """
    num_blocks = outcomes.entropy.shape[1]
    if not 0 <= least_partition <= num_blocks:
        raise PlanError(f"least_partition {least_partition} is beyond the last block, {num_blocks}")
    return [
        candidate
        for strictness, values in enumerate(thresholds)
        for candidate in _with(outcomes, values, strictness, least_partition, level_tolerance)
    ]


def _with(
    outcomes: Outcomes,
    thresholds: tuple[float, ...],
    strictness: int,
    least_partition: int,
    tolerance: float,
) -> Iterator[Candidate]:
    levels, num_blocks = outcomes.frame_bytes.shape
    crossed = outcomes.resumed_correct.shape[2]
    entropy, correct = outcomes.entropy, outcomes.correct
    limits = np.array(thresholds)
    exits = first_sure_exit(entropy, limits)
    whole = _left(exits, correct)
    luck = whole - _left(exits[:crossed], correct[:crossed])
    yield _candidate(Decision(num_blocks, thresholds, 0), strictness, whole, 0.0, 0.0)
    for partition in range(least_partition, num_blocks):
        goes_on = exits > partition
        instead = correct[goes_on, max(partition - 1, 0)]
        edge_accuracy = float(instead.mean()) if partition and goes_on.any() else 0.0
        exact = None
        for level in range(1 if partition == 0 else levels):
            found = outcomes.resumed_entropy[level, partition]
            right = outcomes.resumed_correct[level, partition]
            left = _left(first_sure_exit(found, limits), right) + luck
            frame_bytes = float(outcomes.frame_bytes[level, partition])
            decision = Decision(partition, thresholds, level)
            candidate = _candidate(decision, strictness, left, edge_accuracy, frame_bytes)
            exact = candidate.accuracy if exact is None else exact
            if candidate.accuracy >= exact - tolerance:
                yield candidate


def _left(exits: NDArray[np.int64], correct: Rights) -> NDArray[np.float64]:
    """Shares of samples that leave at each exit, and of those that do so rightly, (2, N)."""
    right = correct[np.arange(len(exits)), exits - 1]
    size = correct.shape[1]
    counts = [np.bincount(exits - 1, each, size) for each in (np.ones(len(exits)), right)]
    return np.array(counts) / len(exits)


def _candidate(
    decision: Decision,
    strictness: int,
    left: NDArray[np.float64],
    edge_accuracy: float,
    frame_bytes: float,
) -> Candidate:
    shares = left[0].clip(0)
    accuracies = left[1].clip(0, shares) / np.where(shares > 0, shares, 1)
    return Candidate(
        decision, strictness, shares / shares.sum(), accuracies, edge_accuracy, frame_bytes
    )
