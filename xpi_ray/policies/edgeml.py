"""EdgeML (Zhao et al., IoTDI'21): the exits' thresholds and the partition, by a learned actor.

    Observation… ─► Recent ─ means of the last periods ─► state ─► Actor ─► actions ─► Decision

From its code (its paper's text was not at hand): the state is bandwidth, accuracy, latency and
power, each the mean over the last three decisions; actions are a threshold for each exit before
the last and the partition, each squashed to its range; one hidden layer of 300. Its third action,
for how many images the others hold, is left out: the scheduler's period takes its place.

Chosen: served without labels, accuracy is surety, one less the exits' entropy. EdgeML has one limit
of latency and here each class has its own, so the state has latency over the class's deadline.
Power is what a request makes the edge work, ``POWER_OF_ALL`` if all blocks run there: the code's
log tells about as much while nearly all layers run on the device, in a unit that it does not tell.
A threshold is the fourth power of its action: networks of today are so sure that on a linear scale
nearly all thresholds would let all leave at the first exit, and training found no others.

The file holds plain tensors and is read without RLlib; ``rl/edgeml`` makes it.
"""

import math
import operator
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from xpi_ray.errors import PlanError
from xpi_ray.policies.base import Decision
from xpi_ray.policies.learned import Layer, check_layers, layers_in, tensors_of
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.timetable import exits_of
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.profiles.table import Profile

VERSION = 1
"""Of what the actor reads and says: a file of another version is refused."""
STATE = 4
HIDDEN = 300
BOUND = 5.0
"""States are cut to it."""
PERIODS = 3  # that a state is the mean of
POWER_OF_ALL = 1.18
THRESHOLD_POWER = 4
THRESHOLD_DIGITS = 4

State = NDArray[np.float32]
Actions = NDArray[np.float32]


class Recent:
    """What the last periods were like at one site; an actor's states come from here.

    Args:
        edge: Profile of the edge, unloaded.
    """

    def __init__(self, edge: Profile) -> None:
        self._all_ms = sum(edge.block_ms)
        self._periods: deque[tuple[float, ...]] = deque(maxlen=PERIODS)
        self._seen: Observation | None = None

    def see(self, observation: Observation) -> None:
        """Take in a period; the same object once more is no news."""
        if observation is self._seen:
            return
        self._seen = observation
        work_s = observation.edge_utilisation / max(observation.arrivals_rps, 1e-9)
        share = 1000 * work_s / self._all_ms if observation.arrivals_rps else 0.0
        self._periods.append(
            (
                observation.link_bps,
                observation.surety,
                observation.latency_ms,
                POWER_OF_ALL * share,
            )
        )

    def state(self, deadline_ms: float) -> State:
        """For a class: ln(Mbit/s), surety, latency over deadline, power; (4,), within ±BOUND.

        Raises:
            ValueError: Nothing was seen yet.
        """
        if not self._periods:
            raise ValueError("expected a period to have been seen")
        link_bps, surety, latency_ms, power = np.mean(self._periods, 0).tolist()
        figures = [math.log(link_bps / 1e6), surety, latency_ms / deadline_ms, power]
        return np.array(figures, np.float32).clip(-BOUND, BOUND)


class EdgeML:
    """Decides by a multilayer perceptron with ReLU between its layers.

    It remembers what it saw, so each site needs one of its own.

    Args:
        edge: Profile of the edge, unloaded.
        exits: Numbers of the blocks that have one, the last one too.
        num_blocks: N.
        layers: From ``STATE`` inputs to a threshold for each exit but the last, and the partition.
        least_partition: Blocks that must run at the edge; EdgeML's is 0.

    Raises:
        PlanError: The layers do not fit each other, states or exits, or hold values that are none.
    """

    def __init__(
        self,
        edge: Profile,
        exits: Sequence[int],
        num_blocks: int,
        layers: Sequence[Layer],
        least_partition: int = 0,
    ) -> None:
        check_layers(layers, STATE, len(exits))
        self.layers = tuple(layers)
        self._exits, self._num_blocks = tuple(exits), num_blocks
        self._least = least_partition
        self._recent = Recent(edge)

    def decide(self, observation: Observation, slo: SloClass) -> Decision:
        """Take in the period, and do what the actor says for the class."""
        self._recent.see(observation)
        actions = act(self.layers, self._recent.state(slo.deadline_ms))
        return decision_of(actions, self._exits, self._num_blocks, self._least)


def act(layers: Sequence[Layer], states: State) -> Actions:
    """Actions for states, (..., STATE) to (..., E), each 0..1."""
    hidden = states
    for weights, biases in layers[:-1]:
        hidden = np.maximum(hidden.dot(weights.T) + biases, 0)
    weights, biases = layers[-1]
    said: Actions = (np.tanh(hidden.dot(weights.T) + biases) + 1) / 2
    return said


def decision_of(
    actions: Actions, exits: Sequence[int], num_blocks: int, least_partition: int
) -> Decision:
    """What actions mean: thresholds, to four digits, and one of the partitions 0..N.

    Args:
        actions: Each 0..1; a threshold for each exit but the last, and the partition, (E,).
        exits: Numbers of the blocks that have one, the last one too.
        num_blocks: N.
        least_partition: Earlier ones become this.
    """
    thresholds = [0.0] * num_blocks
    for exit_, threshold in zip(exits[:-1], actions[:-1].tolist(), strict=True):
        thresholds[exit_ - 1] = round(threshold**THRESHOLD_POWER, THRESHOLD_DIGITS)
    partition = min(int(actions[-1] * (num_blocks + 1)), num_blocks)
    return Decision(max(partition, least_partition), tuple(thresholds), 0)


def to_bytes(layers: Sequence[Layer], exits: Sequence[int], num_blocks: int) -> bytes:
    """A policy as a file.

    Args:
        layers: The actor.
        exits: Numbers of the blocks that have one, the last one too.
        num_blocks: N.
    """
    tensors: dict[str, NDArray[Any]] = tensors_of(layers)
    tensors["exits"] = np.array(exits, np.int64)
    tensors["blocks"] = np.array([num_blocks])
    tensors["edgeml"] = np.array([VERSION])
    return save(tensors)


def from_bytes(data: bytes, edge: Profile, outcomes: Outcomes, least_partition: int = 0) -> EdgeML:
    """Read a policy for a bundle.

    Args:
        data: The file.
        edge: Profile of the edge, unloaded.
        outcomes: The bundle's.
        least_partition: Blocks that must run at the edge.

    Raises:
        PlanError: It is not a policy of this kind, or one of another version or network.
    """
    try:
        tensors = load(data)
        version = int(tensors["edgeml"][0])
        exits = [operator.index(number) for number in tensors["exits"].tolist()]
        num_blocks = operator.index(tensors["blocks"].tolist()[0])
        layers = layers_in(tensors)
    except (SafetensorError, LookupError, TypeError, ValueError, OverflowError) as err:
        raise PlanError(
            f"this is no file of an EdgeML policy ({err}); make one by `xpi train-edgeml`"
        ) from err
    if version != VERSION:
        raise PlanError(
            f"the policy is of version {version}, this server reads version {VERSION}; train it "
            "anew"
        )
    there = exits_of(outcomes).tolist()
    if (exits, num_blocks) != (there, outcomes.entropy.shape[1]):
        raise PlanError(
            f"the policy is for exits {exits} of {num_blocks} blocks, the bundle has {there} of "
            f"{outcomes.entropy.shape[1]}; train one for this bundle"
        )
    return EdgeML(edge, exits, num_blocks, layers, least_partition)
