"""The learned policy: a small network chooses among the best plans of each kind.

    Observation, SloClass ─► Forecast ─► shortlist ─► features ─► layers ─► Decision

The forecast is a model and so is wrong in places; the network reads what it says of each plan, and
has learned where to go by it, in the simulator or from live requests. A kind is a quarter of the
network in which to split it and a strictness of thresholds; the shortlist holds the plan of each
kind that the forecast likes best.
The file holds plain tensors and is read without RLlib.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from xpi_ray.errors import PlanError
from xpi_ray.policies.base import Decision
from xpi_ray.policies.catalogue import Candidate
from xpi_ray.policies.forecast import Forecast
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.utility import Weights
from xpi_ray.profiles.table import Profile

VERSION = 2
"""Of what the network reads and says: a file of another version is refused."""
QUARTERS, STRICTNESSES = 4, 3
SHORTLIST = QUARTERS * STRICTNESSES
"""One plan of each kind."""
STATE = 15
PER_PLAN = 6
FEATURES = STATE + SHORTLIST * PER_PLAN
MAX_FILE_BYTES = 4 * 2**20
MAX_LAYERS = 8
BOUND = 5.0
"""Features are cut to it."""
GAP = slice(STATE, None, PER_PLAN)
"""Where the features hold ``SHARPNESS`` times what each plan's forecast lacks to the best one's."""
SHARPNESS = 20.0
PRUNING_SAMPLES = 2_000

Array = NDArray[np.float64]
Layer = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weights (out, in) and biases (out,)."""


class View(NamedTuple):
    """What the network is shown for one class."""

    features: NDArray[np.float32]
    """(FEATURES,), each in -BOUND..BOUND."""
    shortlist: NDArray[np.intp]
    """Candidates by kind, (SHORTLIST,)."""
    best: float
    """The highest utility of all, by forecast."""


class Viewer:
    """Turns an observation into what the network reads; the same in training and serving.

    Args:
        profile: That slow-downs are relative to.
        candidates: Plans, at least one of each kind.
        weights: What counts.

    Raises:
        PlanError: There is no plan of some kind.
    """

    def __init__(self, profile: Profile, candidates: Sequence[Candidate], weights: Weights) -> None:
        num_blocks = len(profile.block_ms)
        order = sorted(range(len(candidates)), key=lambda i: kind_of(candidates[i], num_blocks))
        self.candidates = [candidates[index] for index in order]
        kinds = [kind_of(candidate, num_blocks) for candidate in self.candidates]
        if sorted(set(kinds)) != list(range(SHORTLIST)):
            raise PlanError(
                f"expected plans of {SHORTLIST} kinds ({QUARTERS} quarters of the network by "
                f"{STRICTNESSES} sets of thresholds), got kinds {sorted(set(kinds))}"
            )
        self.weights = weights
        starts = np.searchsorted(kinds, np.arange(SHORTLIST + 1))
        most = int(np.diff(starts).max())
        # Each kind's candidates; the first fills up, as it comes before itself.
        self._members = np.array(
            [
                [*range(first, last), *[first] * (most - (last - first))]
                for first, last in pairwise(starts.tolist())
            ]
        )
        self._rows = most * np.arange(SHORTLIST)
        self._forecast = Forecast(profile, self.candidates, weights)
        self._plans = np.array(
            [
                (candidate.decision.partition / num_blocks, candidate.decision.level / 6)
                for candidate in self.candidates
            ]
        )

    def view(self, observation: Observation, deadline_ms: float) -> View:
        """What is known of requests with this deadline, and of the best plans for them."""
        predicted = self._forecast.predict(observation, deadline_ms)
        places = self._rows + predicted.utility.take(self._members).argmax(1)
        shortlist = self._members.take(places)
        utility, in_time, accuracy, latency_ms = (each.take(shortlist) for each in predicted)
        best = max(utility.tolist())
        features = np.empty(FEATURES, np.float32)
        features[:STATE] = _state(observation, deadline_ms)
        per_plan = features[STATE:].reshape(SHORTLIST, PER_PLAN)
        per_plan[:, 0] = SHARPNESS * (utility - best)
        per_plan[:, 1] = in_time
        per_plan[:, 2] = accuracy
        per_plan[:, 3] = np.log(latency_ms / deadline_ms)
        per_plan[:, 4:] = self._plans.take(shortlist, 0)
        np.minimum(features, BOUND, out=features)
        np.maximum(features, -BOUND, out=features)
        return View(features, shortlist, best)


class Learned:
    """Decides by a multilayer perceptron with tanh between its layers.

    Args:
        viewer: Makes the features.
        layers: From ``FEATURES`` inputs to ``SHORTLIST`` outputs.

    Raises:
        PlanError: The layers do not fit each other or the features, or hold values that are none.
    """

    def __init__(self, viewer: Viewer, layers: Sequence[Layer]) -> None:
        check_layers(layers, FEATURES, SHORTLIST)
        self.viewer = viewer
        self.layers = tuple(layers)

    def decide(self, observation: Observation, slo: SloClass) -> Decision:
        """The plan of the shortlist that the network prefers."""
        view = self.viewer.view(observation, slo.deadline_ms)
        choice = int(self.logits(view.features).argmax())
        return self.viewer.candidates[int(view.shortlist[choice])].decision

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the network says of each place of the shortlist, (..., SHORTLIST)."""
        hidden = features
        for weights, biases in self.layers[:-1]:
            hidden = hidden.dot(weights.T)
            hidden += biases
            np.tanh(hidden, out=hidden)
        weights, biases = self.layers[-1]
        said: NDArray[np.float32] = hidden.dot(weights.T)
        said += biases
        return said


def check_layers(layers: Sequence[Layer], inputs: int, outputs: int) -> None:
    """Refuse layers that are no perceptron.

    Raises:
        PlanError: They do not fit each other, or the numbers of inputs and outputs, or hold values
            that are no numbers.
    """
    width = inputs
    for number, (weights, biases) in enumerate(layers):
        if biases.ndim != 1 or weights.shape != (len(biases), width):
            raise PlanError(
                f"layer {number} of the policy has the shapes {weights.shape} and {biases.shape}, "
                f"expected {width} inputs; train it anew"
            )
        if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
            raise PlanError(f"layer {number} of the policy holds values that are no numbers")
        width = len(biases)
    if not layers or width != outputs:
        raise PlanError(f"expected {outputs} outputs of the policy, got {width}")


def tensors_of(layers: Sequence[Layer]) -> dict[str, NDArray[Any]]:
    """Layers as a file names them."""
    tensors: dict[str, NDArray[Any]] = {}
    for number, (weights, biases) in enumerate(layers):
        tensors[f"weights{number}"], tensors[f"biases{number}"] = weights, biases
    return tensors


def layers_in(tensors: Mapping[str, NDArray[Any]]) -> list[Layer]:
    """The layers that a file holds, ``MAX_LAYERS`` at most.

    Raises:
        LookupError: One is missing.
    """
    count = sum(name.startswith("weights") for name in tensors)
    return [
        (tensors[f"weights{number}"], tensors[f"biases{number}"])
        for number in range(min(count, MAX_LAYERS))
    ]


def to_bytes(layers: Sequence[Layer], kept: Sequence[int], weights: Weights) -> bytes:
    """A policy as a file.

    Args:
        layers: The network.
        kept: Which of all candidates it chooses from.
        weights: What it was trained for.
    """
    tensors: dict[str, NDArray[Any]] = tensors_of(layers)
    tensors["kept"] = np.array(kept, np.int64)
    tensors["utility"] = np.array(list(weights.model_dump().values()))
    tensors["version"] = np.array([VERSION])
    return save(tensors)


def from_bytes(data: bytes, profile: Profile, candidates: Sequence[Candidate]) -> Learned:
    """Read a policy for a bundle.

    Args:
        data: The file.
        profile: The bundle's.
        candidates: All of the bundle, in their order.

    Raises:
        PlanError: It is not a policy, or one of another version or bundle.
    """
    try:
        tensors = load(data)
        version = int(tensors["version"][0])
        kept = [operator.index(index) for index in tensors["kept"].tolist()]
        names = list(Weights.model_fields)
        weights = Weights(**dict(zip(names, tensors["utility"].tolist(), strict=True)))
        layers = layers_in(tensors)
    except (SafetensorError, LookupError, TypeError, ValueError, OverflowError) as err:
        raise PlanError(f"this is no policy file ({err}); make one by `xpi train-policy`") from err
    if version != VERSION:
        raise PlanError(
            f"the policy reads observations of version {version}, this server makes version "
            f"{VERSION}; train it anew"
        )
    if not (len(set(kept)) == len(kept) and all(0 <= index < len(candidates) for index in kept)):
        raise PlanError(
            f"the policy is of a bundle with other plans than these {len(candidates)}; train one "
            "for this bundle"
        )
    return Learned(Viewer(profile, [candidates[index] for index in kept], weights), layers)


def read(path: Path) -> bytes:
    """A policy's file.

    Raises:
        PlanError: It is missing or too large to be one.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PlanError(f"{path} is larger than {MAX_FILE_BYTES} bytes, too large for a policy")
        return path.read_bytes()
    except OSError as err:
        raise PlanError(f"the policy {path} cannot be read: {err}") from err


def worth_keeping(
    profile: Profile, candidates: Sequence[Candidate], weights: Weights, seed: int = 0
) -> list[int]:
    """The candidates that are the forecast's best in some of many random conditions.

    Fewer plans make decisions quicker. Of a kind that is never the best of all, the one that is
    most often the best of its kind stays.
    """
    rng = np.random.default_rng(seed)
    forecast = Forecast(profile, candidates, weights)
    kinds = np.array([kind_of(candidate, len(profile.block_ms)) for candidate in candidates])
    wins = np.zeros(len(candidates))
    found = set()
    for _ in range(PRUNING_SAMPLES):
        observation = Observation(
            edge_slowdown=np.exp(rng.uniform(np.log(0.7), np.log(60))),
            cloud_slowdown=np.exp(rng.uniform(np.log(0.7), np.log(4))),
            round_trip_ms=np.exp(rng.uniform(np.log(1), np.log(150))),
            link_bps=np.exp(rng.uniform(np.log(2e4), np.log(2e8))),
            link_spread=rng.uniform(0.3, 1.5),
            arrivals_rps=np.exp(rng.uniform(np.log(0.5), np.log(120))),
            cloud_wait_ms=rng.exponential(5.0),
        )
        deadline_ms = np.exp(rng.uniform(np.log(20), np.log(1_000)))
        utility = forecast.predict(observation, deadline_ms).utility
        found.add(int(utility.argmax()))
        for kind in range(SHORTLIST):
            wins[np.where(kinds == kind, utility, -np.inf).argmax()] += 1
    for kind in set(range(SHORTLIST)) - {int(kinds[index]) for index in found}:
        found.add(int(np.where(kinds == kind, wins, -1).argmax()))
    return sorted(found)


def kind_of(candidate: Candidate, num_blocks: int) -> int:
    """The kind of a plan, 0..SHORTLIST - 1: where it splits the network, and when it leaves."""
    quarter = (max(candidate.decision.partition, 1) - 1) * QUARTERS // num_blocks
    return quarter * STRICTNESSES + min(candidate.strictness, STRICTNESSES - 1)


def _state(seen: Observation, deadline_ms: float) -> list[float]:
    """``STATE`` numbers: the observation, in logarithms where factors count."""
    return [
        math.log(seen.edge_slowdown),
        math.log(seen.cloud_slowdown),
        math.log1p(seen.edge_wait_ms) - 1,
        math.log1p(seen.cloud_wait_ms),
        math.log1p(seen.round_trip_ms) - 3,
        math.log(seen.link_bps / 1e6),
        seen.link_spread,
        math.log1p(seen.arrivals_rps) - 2,
        seen.edge_utilisation,
        seen.cloud_utilisation,
        math.log(seen.mean_deadline_ms / 200),
        5 * seen.missed,
        seen.mean_exit,
        seen.surety,
        math.log(deadline_ms / 100),
    ]
