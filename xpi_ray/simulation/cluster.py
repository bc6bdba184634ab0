"""A simulated cluster: sites with their links, and the cloud that they share.

Site… , Profile, Outcomes ─► Cluster ─► set_plans ─► advance ─► requests that ended ─► seen
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.ladder import LAYERS
from xpi_ray.errors import DataError
from xpi_ray.inference.answer import Answers
from xpi_ray.link import estimator
from xpi_ray.link.traces import Trace
from xpi_ray.policies.base import Decision
from xpi_ray.policies.keeper import class_index
from xpi_ray.policies.observation import SEEN, Seen
from xpi_ray.policies.plan import Plan, SloClass
from xpi_ray.policies.utility import Weights
from xpi_ray.profiles.outcomes import Flags, Outcomes
from xpi_ray.profiles.table import Profile
from xpi_ray.simulation import columns as at
from xpi_ray.simulation import engine, heap
from xpi_ray.simulation.arrivals import Times
from xpi_ray.simulation.state import RING, Costs, Floats, State

PRIOR_BPS, PRIOR_ROUND_TRIP_S = 10e6, 0.03  # as the router's estimator begins


@dataclass(frozen=True)
class Site:
    """One edge with its router, link and requests, all drawn beforehand."""

    arrivals: Times
    samples: NDArray[np.int64]
    """Which held-out image each request brings, (n,)."""
    deadlines_ms: Floats
    edge_factors: Floats
    """Of the edge's times in each request, (n,): noise, slow spells."""
    cloud_factors: Floats
    hops_ms: Floats
    """A call to the cloud there and back beside link and queue, (n,)."""
    trace: Trace
    trace_shift_s: float = 0.0
    """Where in the trace the run begins."""
    trace_scale: float = 1.0
    round_trip_ms: float = 10.0
    edge_slowdown: float = 1.0
    """Block times relative to the profile."""
    encode_slowdown: float = 1.0
    """Likewise to encode a carry; a machine that is weak itself is so at that too."""
    work_ms: float = 0.6
    """What a request costs the router beside blocks, before the edge's factor."""
    call_ms: float = 0.0
    """Likewise the edge, where that is a process of its own, if it comes to it."""


@dataclass(frozen=True)
class Machines:
    """The cloud and its bounds, as ``CloudArgs`` and ``SiteArgs`` have them."""

    replicas: int = 1
    max_batch: int = 8
    most_open: int = 128
    """Requests that a router takes at a time, working and waiting."""
    replica_jobs: int = 1024


@dataclass(frozen=True)
class Setting:
    """The bundle's facts that a simulation goes by, and what its sites are told.

    Blocks without an exit are known from the outcomes. An edge that goes on while a frame is in
    flight is there for the next request at once, without ending a block.
    """

    profile: Profile
    outcomes: Outcomes
    classes: tuple[SloClass, ...]
    static: Decision
    machines: Machines = field(default_factory=Machines)
    trusted: Flags | None = None
    """Where the cloud lets a surer edge answer, (L, N), if not by these ``outcomes``."""
    fuses: bool = True
    """Whether the network's blocks read earlier logits; else the cloud sees no exit of the edge."""
    best_effort: bool = True
    """As ``SiteArgs`` has it, and those after it too."""
    answers: Answers = "last"
    goes_on: bool = False
    reroutes: bool = True

    @property
    def edge_trusted(self) -> Flags:
        """Where the cloud lets a surer edge answer, (L, N)."""
        if self.trusted is None:
            return self.outcomes.edge_trusted() & self.fuses
        trusted = np.zeros(self.outcomes.frame_bytes.shape, np.bool_)
        trusted[: len(self.trusted)] = self.trusted  # of images none is
        return trusted & self.fuses

    @property
    def num_samples(self) -> int:
        """Images whose every exit is known after every link."""
        return int(self.outcomes.resumed_entropy.shape[2])

    @cached_property
    def by_ease(self) -> NDArray[np.int64]:
        """These images, those first of which exits are surest."""
        ranked: NDArray[np.int64] = self.outcomes.entropy[: self.num_samples].mean(1).argsort()
        return ranked


class Cluster:
    """Deterministic: the same sites and plans give the same answers.

    Args:
        setting: The bundle's facts.
        sites: At least one.

    Raises:
        DataError: There is no site; or its arrays differ in length, do not rise, or name unknown
            images; or a figure is out of range.
    """

    def __init__(self, setting: Setting, sites: Sequence[Site]) -> None:
        if not sites:
            raise DataError("expected at least one site")
        for number, site in enumerate(sites):
            _check(number, site, setting.num_samples)
        self._setting = setting
        self._costs = _costs(setting, sites)
        self._state = _state(setting, sites)
        self._numbers = {setting.static.thresholds: 0}
        self._read = 0
        self.now_ms = 0.0
        for number in range(len(sites)):
            self.set_plans(number, [setting.static] * len(setting.classes))

    def set_plans(self, site: int, decisions: Sequence[Decision]) -> None:
        """Let a site's requests that arrive from now on go by these.

        Args:
            site: Its number.
            decisions: One for each class, those of short deadlines first.

        Raises:
            PlanError: One does not fit the network.
        """
        levels, num_blocks = self._costs.frame_bytes.shape
        for number, decision in zip(range(len(self._setting.classes)), decisions, strict=True):
            Plan(version=0, **decision._asdict()).check(num_blocks, levels)
            thresholds = self._number_of(decision.thresholds)
            self._state.plans[site, number] = decision.partition, decision.level, thresholds

    def advance(self, until_ms: float) -> Floats:
        """Let time pass; returns the rows of requests that ended, in their order."""
        engine.run(self._state, self._costs, float(until_ms))
        self.now_ms = until_ms
        ended = int(self._state.counts[1])
        rows = self._state.requests[self._state.order[self._read : ended]]
        self._read = ended
        return rows

    def _number_of(self, thresholds: tuple[float, ...]) -> int:
        """Where the engine finds these thresholds."""
        number = self._numbers.setdefault(thresholds, len(self._numbers))
        if number == len(self._costs.thresholds):
            self._costs = self._costs._replace(thresholds=np.array(list(self._numbers)))
        return number

    @property
    def requests(self) -> Floats:
        """All requests' rows, by site and time of arrival."""
        return self._state.requests

    def arriving(self, from_ms: float, until_ms: float) -> NDArray[np.intp]:
        """Which requests arrive in a stretch of time, at all sites."""
        arrived = self._state.requests[:, at.ARRIVED]
        return np.flatnonzero((arrived >= from_ms) & (arrived < until_ms))

    def copy(self) -> "Cluster":
        """The same moment once more, to try something from here."""
        other = copy.copy(self)
        other._numbers = dict(self._numbers)
        other._state = State._make(array.copy() for array in self._state)
        return other


def seen(rows: Floats) -> Seen:
    """What a watch looks at, of simulated requests that ended."""
    told = np.zeros(len(rows), SEEN)
    told["deadline_ms"] = rows[:, at.DEADLINE]
    told["budget_left_ms"] = rows[:, at.DEADLINE] - rows[:, at.TOTAL]
    told["link_bps"] = rows[:, at.LINK_BPS]
    told["link_spread"] = rows[:, at.SPREAD]
    told["round_trip_ms"] = rows[:, at.ROUND_TRIP]
    answered = rows[:, at.STATUS] <= at.BEST_EFFORT  # of the others no more is told
    crossed = answered & (rows[:, at.LINK_MS] > 0)
    for name, column in (
        ("exit", at.EXIT),
        ("entropy", at.ENTROPY),
        ("edge_blocks", at.EDGE_BLOCKS),
        ("edge_wait_ms", at.EDGE_WAIT),
        ("edge_ms", at.EDGE_MS),
        ("encode_ms", at.ENCODE_MS),
    ):
        told[name] = np.where(answered, rows[:, column], 0.0)
    told["cloud_blocks"] = np.where(crossed, rows[:, at.BLOCK] - rows[:, at.CLOUD_FROM], 0.0)
    told["cloud_from"] = np.where(told["cloud_blocks"] > 0, rows[:, at.CLOUD_FROM], 0.0)
    for name, column in (
        ("cloud_wait_ms", at.CLOUD_WAIT),
        ("decode_ms", at.DECODE_MS),
        ("cloud_ms", at.CLOUD_MS),
    ):
        told[name] = np.where(crossed, rows[:, column], 0.0)
    return told


def utilities(rows: Floats, weights: Weights) -> Floats:
    """What each request that ended was worth."""
    in_time = answered_in_time(rows)
    edge_ms = rows[:, at.EDGE_MS] + rows[:, at.ENCODE_MS]
    return weights.utility(in_time, rows[:, at.CORRECT], edge_ms)


def answered_in_time(rows: Floats) -> NDArray[np.bool_]:
    """Whether each request that ended has an answer by its deadline."""
    answered = (rows[:, at.STATUS] > 0) & (rows[:, at.STATUS] <= at.BEST_EFFORT)
    in_time: NDArray[np.bool_] = answered & (rows[:, at.TOTAL] <= rows[:, at.DEADLINE])
    return in_time


def _costs(setting: Setting, sites: Sequence[Site]) -> Costs:
    profile, outcomes, machines = setting.profile, setting.outcomes, setting.machines
    slowdowns = np.array([site.edge_slowdown for site in sites])
    block_ms = np.array(profile.block_ms)
    batch_ms = np.array(
        [
            [profile.batched_ms(block, size) for size in range(1, machines.max_batch + 1)]
            for block in range(1, len(block_ms) + 1)
        ]
    )
    ends = np.cumsum([len(site.trace.carried) for site in sites])
    return Costs(
        edge_ms=slowdowns[:, None] * block_ms,
        encode_ms=profile.encode_ms * np.array([site.encode_slowdown for site in sites]),
        work_ms=np.array([site.work_ms for site in sites]),
        call_ms=np.array([site.call_ms for site in sites]),
        round_trip_ms=np.array([site.round_trip_ms for site in sites]),
        thresholds=np.array([setting.static.thresholds]),
        cloud_ms=batch_ms,
        decode_ms=profile.decode_ms,
        carried=np.concatenate([site.trace.carried for site in sites]),
        trace=np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1).astype(np.int64),
        trace_step_s=np.array([site.trace.step_s for site in sites]),
        trace_shift_s=np.array([site.trace_shift_s for site in sites]),
        trace_scale=np.array([site.trace_scale for site in sites]),
        most_open=machines.most_open,
        best_effort=setting.best_effort,
        goes_on=setting.goes_on,
        reroutes=setting.reroutes,
        surest=setting.answers == "surest",
        images=outcomes.images,
        exits=outcomes.exits,
        least_levels=_least_levels(len(outcomes.frame_bytes), outcomes.images),
        entropy=outcomes.entropy,
        correct=outcomes.correct.astype(np.float32),
        resumed_entropy=np.ascontiguousarray(outcomes.resumed_entropy),
        resumed_correct=np.ascontiguousarray(outcomes.resumed_correct, np.float32),
        frame_bytes=outcomes.frame_bytes.astype(np.float64),
        edge_trusted=setting.edge_trusted,
    )


def _least_levels(levels: int, images: bool) -> NDArray[np.int64]:
    """What a frame can be cut to: layered ones to the base, latents to the first of them."""
    coded = levels - images  # an image stays whole
    layered = min(coded, LAYERS)
    least = np.where(np.arange(coded) < layered, layered - 1, coded - 1)
    return np.append(least, [coded] * images).astype(np.int64)


def _state(setting: Setting, sites: Sequence[Site]) -> State:
    lengths = [len(site.arrivals) for site in sites]
    count, num_sites = sum(lengths), len(sites)
    machines, classes = setting.machines, setting.classes
    classes_ms = np.sort([slo.deadline_ms for slo in classes])
    requests = np.zeros((count, at.COUNT))
    ends = np.cumsum(lengths)
    for number, (site, end) in enumerate(zip(sites, ends, strict=True)):
        part = requests[end - len(site.arrivals) : end]
        part[:, at.ARRIVED] = site.arrivals
        part[:, at.SITE] = number
        part[:, at.SAMPLE] = site.samples
        part[:, at.DEADLINE] = site.deadlines_ms
        part[:, at.SLO] = class_index(classes_ms, site.deadlines_ms)
        part[:, at.EDGE_FACTOR] = site.edge_factors
        part[:, at.CLOUD_FACTOR] = site.cloud_factors
        part[:, at.HOP] = site.hops_ms
    link = np.zeros((num_sites, estimator.SIZE))
    for row in link:
        estimator.begin(row, PRIOR_BPS, PRIOR_ROUND_TRIP_S)
    block_ms = np.array(setting.profile.block_ms)
    edge_pace = [
        [*(site.edge_slowdown * block_ms), site.encode_slowdown * setting.profile.encode_ms]
        for site in sites
    ]
    events = 3 * count + num_sites + machines.replicas
    state = State(
        requests=requests,
        order=np.zeros(count, np.int64),
        counts=np.zeros(2, np.int64),
        heap_ms=np.zeros(events),
        heap_event=np.zeros(events, np.int64),
        next_arrival=(ends - lengths).astype(np.int64),
        last_arrival=ends.astype(np.int64),
        edge_free=np.zeros(num_sites),
        backlog=np.tile([0.0, 0.0, -np.inf], (num_sites, 1)),
        link_free=np.zeros(num_sites),
        open_requests=np.zeros(num_sites, np.int64),
        crossing=np.zeros(num_sites, np.int64),
        silent=np.zeros(num_sites, np.bool_),
        link=link,
        crossings=np.zeros((num_sites, 3, RING)),
        crossed=np.zeros((num_sites, 3), np.int64),
        edge_pace=np.array(edge_pace),
        cloud_pace=np.tile(block_ms, (machines.replicas, 1)),
        plans=np.zeros((num_sites, len(classes), 3), np.int64),
        jobs=np.zeros((machines.replicas, machines.replica_jobs), np.int64),
        newcomers=np.zeros((machines.replicas, machines.replica_jobs), np.int64),
        batch=np.zeros((machines.replicas, machines.max_batch), np.int64),
        queue=np.zeros((machines.replicas, 4), np.int64),
        batch_ms=np.zeros(machines.replicas),
    )
    for number, site in enumerate(sites):
        if len(site.arrivals):
            heap.push(state, float(site.arrivals[0]), heap.ARRIVE, number)
    return state


def _check(number: int, site: Site, num_samples: int) -> None:
    count = len(site.arrivals)
    for name in ("samples", "deadlines_ms", "edge_factors", "cloud_factors", "hops_ms"):
        values = getattr(site, name)
        if len(values) != count:
            raise DataError(f"site {number}: expected {count} {name}, got {len(values)}")
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise DataError(f"site {number}: {name} must be finite and not negative")
    if count and not (site.arrivals[0] >= 0 and (np.diff(site.arrivals) >= 0).all()):
        raise DataError(f"site {number}: arrivals must not fall, from 0 ms on")
    if count and not site.samples.max() < num_samples:
        raise DataError(f"site {number}: samples must be below {num_samples}")
    for name in ("trace_shift_s", "round_trip_ms", "work_ms", "call_ms"):
        if not 0 <= getattr(site, name) < math.inf:
            raise DataError(f"site {number}: {name} must be finite and not negative")
    for name in ("trace_scale", "edge_slowdown", "encode_slowdown"):
        if not 0 < getattr(site, name) < math.inf:
            raise DataError(f"site {number}: {name} must be finite and above 0")
