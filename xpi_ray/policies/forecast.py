"""What each plan would be worth now, by profiles, outcomes and what was seen.

Observation, deadline ─► Forecast.utilities ─► expected utility of every candidate

A request that leaves at exit j takes the blocks before it, as slow as they are now, behind the
queue that this plan would make at the edge, and beyond the partition also encoding, round trip,
sending behind the others' frames, and the cloud's queue. Whether that is in time is a matter of
probability: compute varies by ``COMPUTE_SPREAD``, sending by what the link's estimate says of
itself. Where the cloud is late, the edge's last exit answers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.policies.catalogue import Candidate
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.utility import COST_UNIT_MS, Weights
from xpi_ray.profiles.table import Profile

COMPUTE_SPREAD = 0.3  # standard deviation of the logarithm of a machine's times to a deadline
DEADLINE_SLACK = 1.5  # by which a class's deadlines are taken to lie above the shortest of its band
BUSIEST = 0.97  # utilisation beyond which a queue is taken to be as long as there
KEPT_BACK_MS = 4.0  # by the router, of every deadline

Array = NDArray[np.float64]


class Predicted(NamedTuple):
    """Of every candidate, (K,)."""

    utility: Array
    in_time: Array
    """Probability."""
    accuracy: Array
    """Of what is answered in time."""
    latency_ms: Array
    """Expected."""


class Forecast:
    """Predicts for all candidates at once.

    Args:
        profile: Block times of the machine that slow-downs are relative to.
        candidates: K plans.
        weights: What counts.
    """

    def __init__(self, profile: Profile, candidates: Sequence[Candidate], weights: Weights) -> None:
        self._weights = weights
        cumulative_ms = np.cumsum(profile.block_ms)
        partition = np.array([candidate.decision.partition for candidate in candidates])
        beyond = np.arange(1, len(cumulative_ms) + 1) > partition[:, None]
        self._shares = np.array([candidate.shares for candidate in candidates])
        self._rights = self._shares * [candidate.accuracies for candidate in candidates]
        self._edge_rights = np.array([candidate.edge_accuracy for candidate in candidates])
        self._bits = np.array([8.0 * candidate.frame_bytes for candidate in candidates])
        self._last_ms = np.concatenate([[0.0], cumulative_ms])[partition]
        self._edge_ms = np.minimum(cumulative_ms, self._last_ms[:, None])
        self._cloud_ms = cumulative_ms - self._edge_ms
        self._beyond = beyond.astype(np.float64)
        self._crossing = np.vecdot(self._shares, self._beyond)
        self._work_ms = np.vecdot(self._shares, self._edge_ms)
        # Where nothing ran at the edge there is no exit that could answer instead.
        self._instead = self._shares * self._beyond * (partition > 0)[:, None]

    def predict(self, observation: Observation, deadline_ms: float) -> Predicted:
        """What each candidate would do for requests of one class.

        Args:
            observation: What was seen.
            deadline_ms: The class's.
        """
        seen = observation
        log_deadline = math.log(max(DEADLINE_SLACK * deadline_ms - KEPT_BACK_MS, 0.1))
        work_ms = seen.edge_slowdown * self._work_ms + seen.encode_ms * self._crossing
        arrivals_per_ms = seen.arrivals_rps / 1000
        wait_ms = 1.0 + _wait_ms(arrivals_per_ms, work_ms)
        sending_ms = self._bits * (1000 / seen.link_bps)
        sending_ms += _wait_ms(arrivals_per_ms * self._crossing, sending_ms)
        constant_ms = seen.encode_ms + seen.round_trip_ms + seen.cloud_wait_ms + seen.decode_ms
        latency_ms = self._beyond * (sending_ms + constant_ms)[:, None]
        latency_ms += seen.edge_slowdown * self._edge_ms
        latency_ms += seen.cloud_slowdown * self._cloud_ms
        latency_ms += wait_ms[:, None]
        variance = self._beyond * (seen.link_spread * sending_ms)[:, None] / latency_ms
        variance *= variance
        variance += COMPUTE_SPREAD**2
        in_time = _likely((log_deadline - np.log(latency_ms)) / np.sqrt(variance))
        last_ms = wait_ms + seen.edge_slowdown * self._last_ms
        edge_in_time = _likely((log_deadline - np.log(last_ms)) / COMPUTE_SPREAD)
        instead = edge_in_time * np.vecdot(self._instead, 1 - in_time)
        answered = np.vecdot(self._shares, in_time) + instead
        rights = np.vecdot(self._rights, in_time) + instead * self._edge_rights
        weights = self._weights
        utility = weights.satisfaction * answered + weights.accuracy * rights
        utility -= (weights.edge_cost / COST_UNIT_MS) * work_ms
        expected_ms = np.vecdot(self._shares, latency_ms)
        return Predicted(utility, answered, rights / np.maximum(answered, 1e-9), expected_ms)


def _wait_ms(arrivals_per_ms: Array | float, work_ms: Array) -> Array:
    """Mean time in a queue before work that always takes so long (Pollaczek and Khinchine)."""
    busy = np.minimum(arrivals_per_ms * work_ms, BUSIEST)
    wait_ms: Array = busy * work_ms / (2 * (1 - busy))
    return wait_ms


def _likely(deviations: Array) -> Array:
    """The normal distribution's share below so many deviations, within 0.0003."""
    likely: Array = 0.5 + 0.5 * np.tanh(
        deviations * (0.7978846 + 0.0356774 * deviations * deviations)
    )
    return likely
