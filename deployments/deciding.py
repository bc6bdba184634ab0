"""Who decides: the learned policy or a peer's where it can, and a rule wherever it fails.

    SchedulerArgs, Bundle ─► Decider ─► decide(observation, class) ─► Choice, a plan that fits

The same for the scheduler, for what `xpi serve` says of it, and for `xpi replay`.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deployments.args import SchedulerArgs
from xpi_ray.bundle import Bundle
from xpi_ray.errors import PlanError
from xpi_ray.policies import edgeml, learned
from xpi_ray.policies.base import Decision, Policy
from xpi_ray.policies.edgent import Edgent, EdgentDynamic
from xpi_ray.policies.experience import Pick, pick
from xpi_ray.policies.greedy import LeastLatency
from xpi_ray.policies.learned import Learned
from xpi_ray.policies.neurosurgeon import Neurosurgeon
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import Plan, SloClass
from xpi_ray.policies.spinn import Spinn
from xpi_ray.policies.static import Static
from xpi_ray.policies.timetable import Timetable
from xpi_ray.profiles.layers import NAME as LAYERS
from xpi_ray.profiles.table import Profile

logger = logging.getLogger("ray.serve")

NAME_DIGITS = 16


class Choice(NamedTuple):
    """What was decided, and by whom."""

    decision: Decision
    policy: str
    """Name of the learned policy, see ``name_of``, or of the rule."""
    pick: Pick | None
    """What the learned policy chose from; None if a rule decided."""


def name_of(data: bytes) -> str:
    """A policy's name: the beginning of its file's SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:NAME_DIGITS]


class Decider:
    """Decides for every class; what it says fits the network.

    Peers' policies are rules too. Some remember what they saw, so each site has one of its own;
    where one cannot be made or fails, least latency decides.

    Args:
        args: The scheduler's.
        bundle: What is served.

    Raises:
        PlanError: ``least_partition`` is beyond the last block.
    """

    def __init__(self, args: SchedulerArgs, bundle: Bundle) -> None:
        self._args, self._bundle = args, bundle
        self._least_partition = args.least_partition
        self.rule = "least_latency" if args.policy == "learned" else args.policy
        """Name of the rule that decides where no learned policy does."""
        self._stand_in = (
            _static(bundle) if args.policy == "static" else _least_latency(args, bundle)
        )
        self._peers: dict[str, Policy] = {}
        if self.rule in PEERS:
            self._begin_as_peer()
        self.file = b""
        """Of the learned policy in force; empty if there is none."""
        self.learned: Learned | None = None
        """The learned policy in force."""
        if args.policy == "learned":
            self._begin(args.policy_file)

    @property
    def name(self) -> str:
        """Of the policy in force."""
        return name_of(self.file) if self.file else self.rule

    def adopt(self, file: bytes) -> None:
        """Go by another learned policy from now on.

        Raises:
            PlanError: It cannot be used; the one in force stays.
        """
        profile = self._bundle.manifest.profiles["default"]
        policy = learned.from_bytes(file, profile, self._bundle.candidates())
        first = min(candidate.decision.partition for candidate in policy.viewer.candidates)
        if first < self._least_partition:
            raise PlanError(
                f"the policy splits the network after block {first}, and least_partition is "
                f"{self._least_partition}; lower that or train it for such plans alone"
            )
        self.learned, self.file = policy, file

    def decide(
        self,
        observation: Observation,
        slo: SloClass,
        seed: Sequence[int] | None = None,
        site: str = "",
    ) -> Choice:
        """Decide for a class; where the learned policy fails, the rule does.

        Args:
            observation: What is seen.
            slo: The class.
            seed: Tries other plans too, and of equal chances this decides; None takes the best.
            site: Where; peers' policies remember each site's past by itself.

        Raises:
            PlanError: The rule's plan does not fit either.
        """
        if self.learned is not None:
            try:
                return self._by_policy(self.learned, observation, slo, seed)
            except Exception:  # whatever it is, a rule can do without
                logger.exception("the policy %s cannot decide; %s does", self.name, self.rule)
        return self.by_rule(observation, slo, site)

    def by_rule(self, observation: Observation, slo: SloClass, site: str = "") -> Choice:
        """Decide without the learned policy."""
        if self.rule not in PEERS:
            return Choice(self._fitting(self._stand_in.decide(observation, slo)), self.rule, None)
        try:
            return Choice(self._fitting(self._peer(site).decide(observation, slo)), self.rule, None)
        except Exception:
            logger.exception("the policy %s cannot decide; least_latency does", self.rule)
            decision = self._stand_in.decide(observation, slo)
            return Choice(self._fitting(decision), "least_latency", None)

    def _by_policy(
        self,
        policy: Learned,
        observation: Observation,
        slo: SloClass,
        seed: Sequence[int] | None,
    ) -> Choice:
        view = policy.viewer.view(observation, slo.deadline_ms)
        chance = None if seed is None else np.random.default_rng(seed)
        picked = pick(policy, view, chance)
        decision = policy.viewer.candidates[view.shortlist[picked.action]].decision
        return Choice(self._fitting(decision), self.name, picked)

    def _fitting(self, decision: Decision) -> Decision:
        """Refuse what is not a plan for this network."""
        num_blocks = self._bundle.network.num_blocks
        Plan(version=0, **decision._asdict()).check(num_blocks, self._bundle.num_levels)
        return decision

    def _peer(self, site: str) -> Policy:
        if site not in self._peers:
            self._peers[site] = PEERS[self.rule](self._args, self._bundle, site)
        return self._peers[site]

    def _begin_as_peer(self) -> None:
        """Make sure that the peer's policy can be made."""
        try:
            self._peer("")
        except PlanError as err:
            logger.error("the policy %s is not used, least_latency decides: %s", self.rule, err)
            self.rule = "least_latency"

    def _begin(self, path: str | None) -> None:
        """Take the first learned policy, if there is one that can be used."""
        try:
            file = self._bundle.policy if path is None else learned.read(Path(path))
            if file is None:
                logger.warning(
                    "the bundle holds no learned policy, so least_latency decides; "
                    "`xpi train-policy` makes one"
                )
                return
            self.adopt(file)
        except PlanError as err:
            logger.error("the learned policy is not used, least_latency decides: %s", err)


def prior(args: SchedulerArgs, profile: Profile) -> Observation:
    """What is taken for granted of a site before its requests tell."""
    return Observation(
        edge_slowdown=args.edge_slowdown,
        encode_ms=profile.encode_ms * args.edge_slowdown,
        round_trip_ms=args.round_trip_ms,
    )


def _static(bundle: Bundle) -> Policy:
    plan = bundle.manifest.static_plan
    return Static(Decision(plan.partition, plan.thresholds, plan.level))


def _least_latency(args: SchedulerArgs, bundle: Bundle) -> Policy:
    profile = bundle.manifest.profiles["default"]
    outcomes = bundle.levelled()
    return LeastLatency(profile, outcomes, bundle.thresholds(), args.least_partition)


def _edgent(args: SchedulerArgs, bundle: Bundle, site: str) -> Policy:
    cloud = bundle.manifest.profile_of("cloud")
    return Edgent(_offline(args, bundle, site, cloud), bundle.outcomes, args.least_partition)


def _edgent_dynamic(args: SchedulerArgs, bundle: Bundle, site: str) -> Policy:
    timetable = _offline(args, bundle, site, bundle.manifest.profile_of("cloud"))
    return EdgentDynamic(timetable, bundle.outcomes, args.round_trip_ms, args.least_partition)


def _neurosurgeon(args: SchedulerArgs, bundle: Bundle, site: str) -> Policy:
    """Neurosurgeon knows the cloud's load, which is observed relative to the default profile."""
    default = bundle.manifest.profiles["default"]
    return Neurosurgeon(_offline(args, bundle, site, default), args.least_partition)


def _spinn(args: SchedulerArgs, bundle: Bundle, site: str) -> Policy:
    """SPINN corrects by the slow-downs that are observed, which are relative to one profile."""
    del site
    profile = bundle.manifest.profiles["default"]
    timetable = Timetable(profile, profile, bundle.outcomes)
    num_classes = len(bundle.manifest.labels)
    return Spinn(timetable, bundle.outcomes, num_classes, args.least_partition)


def _edgeml(args: SchedulerArgs, bundle: Bundle, site: str) -> Policy:
    if args.policy_file is None:
        raise PlanError("edgeml needs a policy_file; make one by `xpi train-edgeml`")
    data = learned.read(Path(args.policy_file))
    edge = _edge(args, bundle, site)
    return edgeml.from_bytes(data, edge, bundle.outcomes, args.least_partition)


PEERS: Mapping[str, Callable[[SchedulerArgs, Bundle, str], Policy]] = {
    "edgent": _edgent,
    "edgent_dynamic": _edgent_dynamic,
    "spinn": _spinn,
    "neurosurgeon": _neurosurgeon,
    "edgeml": _edgeml,
}
"""How each is made for a site, by the name that ``SchedulerArgs`` gives it."""


def _edge(args: SchedulerArgs, bundle: Bundle, site: str) -> Profile:
    """Of a site's edge, as known before anything is served."""
    default = bundle.manifest.profiles["default"]
    measured = bundle.manifest.profile_of(f"edge:{site}", "edge")
    return default.slowed(args.edge_slowdown) if measured is default else measured


def _offline(args: SchedulerArgs, bundle: Bundle, site: str, cloud: Profile) -> Timetable:
    """By what is known before anything is served, from layers if the bundle has such a profile.

    Layers are measured on one machine; a machine's regressions differ from them by how much longer
    all blocks take there.
    """
    default = bundle.manifest.profiles["default"]
    edge = _edge(args, bundle, site)
    if LAYERS in bundle.manifest.profiles:
        layers = bundle.manifest.profiles[LAYERS]
        total_ms = sum(default.block_ms)
        edge, cloud = (layers.slowed(sum(each.block_ms) / total_ms) for each in (edge, cloud))
    return Timetable(edge, cloud, bundle.outcomes)
