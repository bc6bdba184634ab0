"""SPINN (Laskaridis et al., MobiCom'20): one confidence threshold for all exits, and one split.

    Outcomes ─ thresholds ─► where samples leave, how accurate ─┐
    Timetable ─ bandwidth, loads ─► time to each exit ──────────┴─► in time? ─► best in order

From the paper, by its abstract, notes and memory, as its text was not at hand: exit policy and
split are chosen together; a request that no exit is sure of gets the answer of the surest; splits
and thresholds, on a grid of a tenth, are enumerated over profiles made offline; what breaks a hard
limit is dropped, and the rest compared by soft targets in the user's order; online, latency is
corrected by the ratio of observed to profiled load and a moving average of the bandwidth.

Chosen: the hard limit is the class's deadline for the expected latency. The order is accuracy,
then latency, then work at the edge: Xpi's own goals, in their order. Accuracy is the threshold's,
whatever the split, since 8 bits lose next to nothing: else the chance of few images would choose
the split. Queues that were seen add to latency, as the ratios in SPINN hold them. Where nothing
meets the deadline the quickest plan holds. Exits here look at entropy and not at the top
probability; as outcomes hold no probabilities, a tenth of the grid stands for the entropy halfway
between the least and the most that a softmax with this top probability can have.
"""

import math
from collections import deque

import numpy as np

from xpi_ray.exits.rule import first_sure_exit
from xpi_ray.policies.base import Decision
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.timetable import Array, Timetable
from xpi_ray.profiles.outcomes import Outcomes

CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Top probabilities from which an exit is sure."""
AVERAGED = 5  # periods of bandwidth; SPINN's window is not known


class Spinn:
    """The best threshold and split in SPINN's order.

    It remembers bandwidths, so each site needs one of its own. An observation that is the same
    object as the last one is another class's, and no news.

    Args:
        timetable: By the profiles that slow-downs are relative to.
        outcomes: Of the network on held-out images.
        num_classes: K.
        least_partition: Blocks that must run at the edge; the paper's is 0.
    """

    def __init__(
        self,
        timetable: Timetable,
        outcomes: Outcomes,
        num_classes: int,
        least_partition: int = 0,
    ) -> None:
        self._timetable = timetable
        self._least = least_partition
        entropies = [entropy_at(confidence, num_classes) for confidence in CONFIDENCES]
        self._thresholds = np.outer(entropies, outcomes.exits)
        judged = [_judge(outcomes, thresholds) for thresholds in self._thresholds]
        self._shares = np.array([shares for shares, _ in judged])
        self._accuracies = np.array([accuracy for _, accuracy in judged])
        self._bandwidths: deque[float] = deque(maxlen=AVERAGED)
        self._seen: Observation | None = None

    def decide(self, observation: Observation, slo: SloClass) -> Decision:
        """Choose among all splits and thresholds."""
        if observation is not self._seen:
            self._seen = observation
            self._bandwidths.append(observation.link_bps)
        latency_ms = self._expected(
            observation.edge_wait_ms
            + self._timetable.latency_ms(
                float(np.mean(self._bandwidths)),
                observation.round_trip_ms + observation.cloud_wait_ms,
                observation.edge_slowdown,
                observation.cloud_slowdown,
            )
        )
        work_ms = self._expected(self._timetable.edge_ms)
        accuracy = np.broadcast_to(self._accuracies, latency_ms.shape)
        meets = latency_ms <= slo.deadline_ms
        if meets.any():
            keys = work_ms[meets], latency_ms[meets], -accuracy[meets]
            place = np.flatnonzero(meets)[np.lexsort(keys)[0]]
        else:
            place = latency_ms.argmin()
        partition, threshold = np.unravel_index(place, latency_ms.shape)
        return Decision(
            self._least + int(partition), tuple(self._thresholds[threshold].tolist()), 0
        )

    def _expected(self, at_exits: Array) -> Array:
        """Means over samples, (splits, thresholds), of figures by split and exit, (N + 1, N)."""
        means: Array = at_exits[self._least :] @ self._shares.T
        return means


def entropy_at(confidence: float, num_classes: int) -> float:
    """The normalised entropy that stands for a top probability, 0..1.

    Args:
        confidence: The top probability, above 0 and at most 1; below 1 / K it counts as that.
        num_classes: K, at least 2.
    """
    top = max(confidence, 1 / num_classes)
    rest = (1 - top) / (num_classes - 1)
    as_sure = math.floor(1 / top + 1e-9)  # classes, if the others are as likely as the top one
    least = as_sure * _term(top) + _term(max(1 - as_sure * top, 0.0))
    most = _term(top) + (num_classes - 1) * _term(rest)
    return min((least + most) / 2 / math.log(num_classes), 1.0)


def _term(probability: float) -> float:
    return -probability * math.log(probability) if probability > 0 else 0.0


def _judge(outcomes: Outcomes, thresholds: Array) -> tuple[Array, float]:
    """Shares of samples that leave at each exit, (N,), and the accuracy of all."""
    entropy, samples = outcomes.entropy, np.arange(len(outcomes.entropy))
    leaves = first_sure_exit(entropy, thresholds) - 1
    unsure = entropy[samples, leaves] > thresholds[leaves]
    answers = np.where(unsure, entropy.argmin(1), leaves)
    shares = np.bincount(leaves, minlength=entropy.shape[1]) / len(samples)
    return shares, float(outcomes.correct[samples, answers].mean())
