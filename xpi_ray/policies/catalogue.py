"""Every plan worth considering, and what outcomes say of it.

Outcomes, sets of thresholds ─► candidates ─► policies that compare plans
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
    """A plan, and what it did to the held-out samples."""

    decision: Decision
    strictness: int
    """Index of the thresholds, 0 the strictest."""
    shares: NDArray[np.float64]
    """Of samples that leave at each exit, (N,)."""
    accuracies: NDArray[np.float64]
    """Of the samples that leave at each exit, (N,); 0 where none does."""
    edge_accuracy: float
    """Of those that go on to the cloud, if the edge's last exit answered instead."""
    frame_bytes: float
    sends_image: bool = False
    """Whether the image itself follows a request that no exit at the edge is sure of."""

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

    Those that send the image itself come last.

    Args:
        outcomes: Of the network on held-out images, or a ``population`` of them.
        thresholds: Sets of N thresholds, the strictest first.
        least_partition: Blocks that must run at the edge, 0..N.
        level_tolerance: Accuracy that a level may cost beside level 0; other levels are left out.

    Raises:
        PlanError: ``least_partition`` is beyond the last block.
    """
    num_blocks = outcomes.entropy.shape[1]
    if not 0 <= least_partition <= num_blocks:
        raise PlanError(f"least_partition {least_partition} is beyond the last block, {num_blocks}")
    coded = [
        candidate
        for strictness, values in enumerate(thresholds)
        for candidate in _with(outcomes, values, strictness, least_partition, level_tolerance)
    ]
    if not outcomes.images:
        return coded
    level = len(outcomes.frame_bytes) - 1
    return coded + [
        _crossing(outcomes, Decision(partition, values, level), strictness)
        for strictness, values in enumerate(thresholds)
        for partition in range(max(least_partition, 1), num_blocks)
    ]


def _with(
    outcomes: Outcomes,
    thresholds: tuple[float, ...],
    strictness: int,
    least_partition: int,
    tolerance: float,
) -> Iterator[Candidate]:
    levels, num_blocks = outcomes.frame_bytes.shape
    levels -= outcomes.images
    stay = Decision(num_blocks, thresholds, 0)
    yield _judge(outcomes.entropy, outcomes.correct, stay, strictness, 0.0)
    for partition in range(least_partition, num_blocks):
        exact = None
        for level in range(1 if partition == 0 else levels):
            candidate = _crossing(outcomes, Decision(partition, thresholds, level), strictness)
            exact = candidate.accuracy if exact is None else exact
            if candidate.accuracy >= exact - tolerance:
                yield candidate


def _crossing(outcomes: Outcomes, decision: Decision, strictness: int) -> Candidate:
    place = decision.level, decision.partition
    judged = _judge(
        outcomes.resumed_entropy[place],
        outcomes.resumed_correct[place],
        decision,
        strictness,
        float(outcomes.frame_bytes[place]),
    )
    last = decision.level == len(outcomes.frame_bytes) - 1
    return judged._replace(sends_image=outcomes.images and last)


def _judge(
    entropy: NDArray[np.float32],
    correct: Rights,
    decision: Decision,
    strictness: int,
    frame_bytes: float,
) -> Candidate:
    exits = first_sure_exit(entropy, np.array(decision.thresholds))
    right = correct[np.arange(len(exits)), exits - 1]
    counts = np.bincount(exits - 1, minlength=entropy.shape[1])
    rights = np.bincount(exits - 1, weights=right, minlength=entropy.shape[1])
    goes_on = exits > decision.partition
    last_at_edge = correct[goes_on, max(decision.partition - 1, 0)]
    at_edge = float(last_at_edge.mean()) if decision.partition and goes_on.any() else 0.0
    return Candidate(
        decision,
        strictness,
        counts / len(exits),
        rights / np.maximum(counts, 1),
        at_edge,
        frame_bytes,
    )
