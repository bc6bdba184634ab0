"""What each plan would be worth now, by profiles, outcomes and what was seen.

    Observation ─► outlook ─ deadline ─► expected utility of every candidate

A request that leaves at exit j takes the blocks before it, as slow as they are now, behind the
queue that this plan would make at the edge, and beyond the partition also encoding, round trip,
sending behind the others' frames, and the cloud's queue. Whether that is in time is a matter of
probability: compute varies by ``COMPUTE_SPREAD``, sending by what the link's estimate says of
itself. Where the cloud is late, the edge's last exit answers.

Arrays so small cost NumPy more by the call than by the element, so there are few calls: one product
gives all that is linear in what was seen, and the classes share what does not depend on deadlines.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.policies.catalogue import Candidate
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.utility import COST_UNIT_MS, Weights
from xpi_ray.profiles.table import Profile

COMPUTE_SPREAD = 0.6  # standard deviation of the logarithm of a machine's times to a deadline
DEADLINE_SLACK = 2.0  # by which a class's deadlines are taken to lie above the shortest of its band
BURSTINESS = 1.7  # how much closer together requests come than evenly, when they come
BUSIEST = 0.97  # utilisation beyond which a queue is taken to be as long as there
KEPT_BACK_MS = 7.0  # by the router, of every deadline

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


class _Outlook(NamedTuple):
    """What an observation means, whatever the deadline."""

    seen: Observation
    log_ms: Array
    """Logarithm of the time to each exit, and to the edge's last one instead, (N + 1, K)."""
    spread: Array
    """Standard deviation of that."""
    mean_ms: Array
    """Of all exits, (K,)."""
    cost: Array
    """Of the work at the edge, in utility, (K,)."""


class Forecast:
    """Predicts for all candidates at once.

    Args:
        profile: Block times of the machine that slow-downs are relative to.
        candidates: K plans.
        weights: What counts.
    """

    def __init__(self, profile: Profile, candidates: Sequence[Candidate], weights: Weights) -> None:
        partition = np.array([candidate.decision.partition for candidate in candidates])
        shares = np.array([candidate.shares for candidate in candidates]).T
        rights = shares * np.array([candidate.accuracies for candidate in candidates]).T
        edge_rights = np.array([candidate.edge_accuracy for candidate in candidates])
        beyond = np.arange(1, len(shares) + 1)[:, None] > partition
        # Where nothing ran at the edge there is no exit that could answer instead.
        instead = shares * (beyond & (partition > 0))
        self._counts = np.array([shares, rights, instead, instead * edge_rights])
        self._going_on = self._counts[2:].sum(1)
        self._worth = np.array([weights.satisfaction, weights.accuracy])
        self._cost = 2 * weights.edge_cost / COST_UNIT_MS  # of half the work

        def ends(at_exits: NDArray[Any], at_edge: Array) -> Array:
            """At every exit, at the edge's last one instead, and on average, (N + 2, K)."""
            return np.vstack([at_exits, at_edge, (shares * at_exits).sum(0)])

        none = np.zeros(len(candidates))
        cumulative_ms = np.cumsum(profile.block_ms)[:, None]
        last_ms = np.append(0.0, cumulative_ms)[partition]
        edge_ms = np.minimum(cumulative_ms, last_ms)
        images = np.array([candidate.sends_image for candidate in candidates])
        again_ms = last_ms * (images & beyond)  # the cloud begins with the image
        edge, cloud = ends(edge_ms, last_ms), ends(cumulative_ms - edge_ms + again_ms, none)
        self._beyond = ends(beyond, none)
        encoded = ends(beyond & (partition > 0) & ~images, none)
        work_ms, crossing, encoding = edge[-1], self._beyond[-1], encoded[-1]
        bits = np.array([8.0 * candidate.frame_bytes for candidate in candidates])
        nowhere, one = np.zeros_like(edge), none + 1

        # Idle shares of edge and link, half of what a request makes them work, times to the ends.
        def rows(
            idle_edge: Array = none,
            idle_link: Array = none,
            half_work: Array = none,
            half_sending: Array = none,
            times: Array = nowhere,
        ) -> Array:
            return np.vstack([idle_edge, idle_link, half_work, half_sending, times])

        linear = [  # in the order of the terms in ``_look``
            rows(half_work=work_ms / 2, times=edge),
            rows(times=cloud),
            rows(times=self._beyond),
            rows(half_work=encoding / 2, times=encoded),
            rows(half_sending=bits / 2),
            rows(idle_edge=-work_ms),
            rows(idle_edge=-encoding),
            rows(idle_link=-crossing * bits),
            rows(idle_edge=one, idle_link=one, times=nowhere + 1),
        ]
        self._shape = linear[0].shape
        self._linear = np.reshape(linear, (len(linear), -1)).T
        self._outlook = self._look(Observation())

    def predict(self, observation: Observation, deadline_ms: float) -> Predicted:
        """What each candidate would do for requests of one class.

        Args:
            observation: What was seen; the same object again, for another class, costs less.
            deadline_ms: The class's.
        """
        outlook = self._outlook
        if outlook.seen is not observation:
            outlook = self._outlook = self._look(observation)
        log_deadline = math.log(max(DEADLINE_SLACK * deadline_ms - KEPT_BACK_MS, 0.1))
        deviations = log_deadline - outlook.log_ms
        deviations /= outlook.spread
        likely = _likely(deviations)
        counts = np.einsum("cnk,nk->ck", self._counts, likely[:-1])
        answers = self._going_on - counts[2:]
        answers *= likely[-1]
        answers += counts[:2]
        utility = self._worth.dot(answers) - outlook.cost
        in_time, rights = answers[0], answers[1]
        return Predicted(utility, in_time, rights / np.maximum(in_time, 1e-9), outlook.mean_ms)

    def _look(self, seen: Observation) -> _Outlook:
        arrivals_per_ms, ms_per_bit = BURSTINESS * seen.arrivals_rps / 1000, 1000 / seen.link_bps
        terms = [
            seen.edge_slowdown,
            seen.cloud_slowdown,
            seen.round_trip_ms + seen.cloud_wait_ms + seen.decode_ms,
            seen.encode_ms,
            ms_per_bit,
            arrivals_per_ms * seen.edge_slowdown,
            arrivals_per_ms * seen.encode_ms,
            arrivals_per_ms * ms_per_bit,
            1.0,
        ]
        linear = self._linear.dot(np.array(terms)).reshape(self._shape)
        idle, half_ms, times_ms = linear[:2], linear[2:4], linear[4:]
        # Before work that always takes w and keeps a queue busy by b, the mean wait is half of
        # w b / (1 - b) = w / (1 - b) - w (Pollaczek and Khinchine).
        half_busy_ms = half_ms / np.maximum(idle, 1 - BUSIEST)
        sending_ms = self._beyond * (half_busy_ms[1] + half_ms[1])
        times_ms += half_busy_ms[0] - half_ms[0]
        times_ms += sending_ms
        spread = sending_ms[:-1]
        spread /= times_ms[:-1]
        spread *= spread
        spread *= seen.link_spread**2
        spread += COMPUTE_SPREAD**2
        np.sqrt(spread, out=spread)
        log_ms, mean_ms = np.log(times_ms[:-1]), times_ms[-1]
        return _Outlook(seen, log_ms, spread, mean_ms, self._cost * half_ms[0])


def _likely(deviations: Array) -> Array:
    """The normal distribution's share below so many deviations, within 0.0003."""
    likely: Array = deviations * deviations
    likely *= 0.0356774
    likely += 0.7978846
    likely *= deviations
    np.tanh(likely, out=likely)
    likely *= 0.5
    likely += 0.5
    return likely
