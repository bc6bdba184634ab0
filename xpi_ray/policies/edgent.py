"""Edgent (Li et al., TWC 2020): an exit that fits the deadline, and where to split before it.

    layers' regressions ─► Timetable ─┬─ bandwidth now ─► Algorithm 1 ─► exit, partition
                                      └─ bandwidth states ─► map ─┐
                       bandwidth now ─► ChangePoints ─► state ────┴─► exit, partition

From the paper, by notes and memory, as its text was not at hand: latency is the sum of predicted
layer times and of bytes over bandwidth; load and queues are in no part of it. Static (Algorithm 1):
exits from the deepest on, for each the partition of least latency, and the first that meets the
deadline. Dynamic: offline, for each bandwidth state the exit and partition of highest reward,
exp(accuracy) + throughput where the deadline is met, else 0; online, change-point detection tells
the state, and the map is looked up. Which units the reward has the notes do not tell; here accuracy
is a share and throughput is inferences per second, the inverse of latency.

Chosen: the device runs the first layers and the server the last, as everywhere in the product; in
Edgent it is the other way round. What a call takes beside sending counts with the bandwidth. Where
no exit meets the deadline Edgent gives up; here the quickest plan holds. An exit for all requests
is a threshold of 1 there and 0 elsewhere.
"""

import math

import numpy as np
from numpy.typing import NDArray

from xpi_ray.policies.base import Decision
from xpi_ray.policies.change_points import ChangePoints
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.timetable import Timetable, exits_of, leaving_at
from xpi_ray.profiles.outcomes import Outcomes

STATES_BPS = np.geomspace(1e4, 1e9, 101)
"""Bandwidth states of the map, each 12 % above the one before; Edgent takes means of its traces."""


class Edgent:
    """The deepest exit that meets the deadline at the bandwidth of the moment.

    Args:
        timetable: By the regressions of both machines.
        outcomes: Tell which blocks have exits.
        least_partition: Blocks that must run at the edge; the paper's is 0.
    """

    def __init__(self, timetable: Timetable, outcomes: Outcomes, least_partition: int = 0) -> None:
        self._timetable = timetable
        self._exits = exits_of(outcomes)
        self._least = least_partition

    def decide(self, observation: Observation, slo: SloClass) -> Decision:
        """Choose by Algorithm 1."""
        latency_ms = self._timetable.latency_ms(observation.link_bps, observation.round_trip_ms)
        partitions, least_ms = best_splits(latency_ms, self._exits, self._least)
        meeting = np.flatnonzero(least_ms <= slo.deadline_ms)
        place = int(meeting[-1]) if len(meeting) else int(least_ms.argmin())
        return leaving_at(int(self._exits[place]), int(partitions[place]), latency_ms.shape[1])


class EdgentDynamic:
    """The map's entry for the bandwidth state that change-point detection tells.

    It remembers what it saw, so each site needs one of its own. An observation that is the same
    object as the last one is another class's, and no news.

    Args:
        timetable: By the regressions of both machines.
        outcomes: Tell which blocks have exits, and how accurate these are.
        round_trip_ms: What a call to the cloud takes beside sending, known when the map is made.
        least_partition: Blocks that must run at the edge; the paper's is 0.
    """

    def __init__(
        self,
        timetable: Timetable,
        outcomes: Outcomes,
        round_trip_ms: float,
        least_partition: int = 0,
    ) -> None:
        self._timetable = timetable
        self._exits = exits_of(outcomes)
        self._accuracies = outcomes.correct.mean(0)[self._exits - 1]
        self._round_trip_ms = round_trip_ms
        self._least = least_partition
        self._maps: dict[float, list[Decision]] = {}
        self._bandwidth = ChangePoints(first_guess=math.log(STATES_BPS[len(STATES_BPS) // 2]))
        self._seen: Observation | None = None

    def decide(self, observation: Observation, slo: SloClass) -> Decision:
        """Take in the bandwidth, and look up its state."""
        if observation is not self._seen:
            self._seen = observation
            self._bandwidth.see(math.log(observation.link_bps))
        state = int(np.abs(np.log(STATES_BPS) - self._bandwidth.mean).argmin())
        return self._map(slo.deadline_ms)[state]

    def _map(self, deadline_ms: float) -> list[Decision]:
        """A deadline's configuration map, made when it is first asked for."""
        if deadline_ms not in self._maps:
            self._maps[deadline_ms] = [
                self._best(float(link_bps), deadline_ms) for link_bps in STATES_BPS
            ]
        return self._maps[deadline_ms]

    def _best(self, link_bps: float, deadline_ms: float) -> Decision:
        """The configuration of highest reward in a state, or where none has any the quickest."""
        latency_ms = self._timetable.latency_ms(link_bps, self._round_trip_ms)
        partitions, least_ms = best_splits(latency_ms, self._exits, self._least)
        reward = np.exp(self._accuracies) + 1000 / least_ms
        meets = least_ms <= deadline_ms
        place = int(np.where(meets, reward, 0.0).argmax() if meets.any() else least_ms.argmin())
        return leaving_at(int(self._exits[place]), int(partitions[place]), latency_ms.shape[1])


def best_splits(
    latency_ms: NDArray[np.float64], exits: NDArray[np.intp], least_partition: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each exit the partition of least latency, and that latency, (E,) each.

    Args:
        latency_ms: Of partitions 0..N and exits 1..N, (N + 1, N).
        exits: Numbers of the blocks that have one, (E,).
        least_partition: Earlier ones are left out.
    """
    allowed_ms = latency_ms[least_partition:, exits - 1]
    return least_partition + allowed_ms.argmin(0), allowed_ms.min(0)
