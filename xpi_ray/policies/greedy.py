"""The policy of least expected latency, from profiles and outcomes alone.

    outcomes ─► where samples leave, for every thresholds × level × partition   (once)
    profile, Observation ─► latency of leaving at each exit ─► expected, p95 ─► the least that
                                                                meets the class's deadline

It gives up accuracy only where the deadline asks for it: thresholds that lose more are looked at
only when no plan with the stricter ones meets the deadline.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xpi_ray.policies.base import Decision
from xpi_ray.policies.catalogue import Candidate, candidates
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.profiles.table import Profile

TAIL = 0.95  # share of requests that must meet the deadline
LEVEL_TOLERANCE = 0.005  # accuracy that compression may cost


class LeastLatency:
    """Least expected latency that meets the deadline at the tail.

    Args:
        profile: Block times of an unloaded machine.
        outcomes: Of the network on held-out images.
        thresholds: Sets of N thresholds, the strictest first.
        least_partition: Blocks that must run at the edge; 1 keeps an exit in hand before anything
            crosses the link, so that a dead cloud costs accuracy and not the answer.

    Raises:
        PlanError: ``least_partition`` is beyond the last block.
    """

    def __init__(
        self,
        profile: Profile,
        outcomes: Outcomes,
        thresholds: Sequence[tuple[float, ...]],
        least_partition: int = 1,
    ) -> None:
        self._profile = profile
        self._candidates = candidates(outcomes, thresholds, least_partition, LEVEL_TOLERANCE)

    def decide(self, observation: Observation, slo: SloClass) -> Decision:
        """Choose; when no plan meets the deadline, the one with the shortest tail."""
        by_strictness: dict[int, list[tuple[float, Decision]]] = {}
        shortest: tuple[float, Decision] | None = None
        for candidate in self._candidates:
            latency_ms = self._latency_ms(candidate, observation)
            expected_ms = float(candidate.shares @ latency_ms)
            tail_ms = float(latency_ms[np.searchsorted(candidate.shares.cumsum(), TAIL - 1e-9)])
            if tail_ms <= slo.deadline_ms:
                meeting = by_strictness.setdefault(candidate.strictness, [])
                meeting.append((expected_ms, candidate.decision))
            if shortest is None or tail_ms < shortest[0]:
                shortest = (tail_ms, candidate.decision)
        if by_strictness:
            return min(by_strictness[min(by_strictness)], key=lambda pair: pair[0])[1]
        assert shortest is not None
        return shortest[1]

    def _latency_ms(self, candidate: Candidate, observation: Observation) -> NDArray[np.float64]:
        """Latency of a request that leaves at each exit, (N,)."""
        block_ms = np.array(self._profile.block_ms)
        partition = candidate.decision.partition
        at_edge = np.arange(1, len(block_ms) + 1) <= partition
        slowdown = np.where(at_edge, observation.edge_slowdown, observation.cloud_slowdown)
        latency_ms: NDArray[np.float64] = observation.edge_wait_ms + (block_ms * slowdown).cumsum()
        if candidate.sends_image or partition == 0:  # the cloud begins with the image
            sending_ms = block_ms[:partition].sum() * observation.cloud_slowdown
        else:
            sending_ms = self._profile.encode_ms * observation.edge_slowdown
        crossing_ms = (
            sending_ms
            + observation.round_trip_ms
            + candidate.frame_bytes * 8 / observation.link_bps * 1000
            + observation.cloud_wait_ms
            + self._profile.decode_ms * observation.cloud_slowdown
        )
        return latency_ms + np.where(at_edge, 0.0, crossing_ms)
