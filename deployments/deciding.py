"""Who decides: the learned policy where there is a usable one, and a rule wherever it fails.

    SchedulerArgs, Bundle ─► Decider ─► decide(observation, class) ─► Choice, a plan that fits

The same for the scheduler, for what `xpi serve` says of it, and for `xpi replay`.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deployments.args import SchedulerArgs
from xpi_ray.bundle import Bundle
from xpi_ray.errors import PlanError
from xpi_ray.policies import learned
from xpi_ray.policies.base import Decision, Policy
from xpi_ray.policies.experience import Pick, pick
from xpi_ray.policies.greedy import LeastLatency
from xpi_ray.policies.learned import Learned
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import Plan, SloClass
from xpi_ray.policies.static import Static

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

    Args:
        args: The scheduler's.
        bundle: What is served.

    Raises:
        PlanError: ``least_partition`` is beyond the last block.
    """

    def __init__(self, args: SchedulerArgs, bundle: Bundle) -> None:
        self._bundle = bundle
        self._least_partition = args.least_partition
        self.rule = "static" if args.policy == "static" else "least_latency"
        """Name of the rule that decides where no learned policy does."""
        self._rule = _rule(args, bundle)
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
        self, observation: Observation, slo: SloClass, seed: Sequence[int] | None = None
    ) -> Choice:
        """Decide for a class; where the learned policy fails, the rule does.

        Args:
            observation: What is seen.
            slo: The class.
            seed: Tries other plans too, and of equal chances this decides; None takes the best.

        Raises:
            PlanError: The rule's plan does not fit either.
        """
        if self.learned is not None:
            try:
                return self._by_policy(self.learned, observation, slo, seed)
            except Exception:  # whatever it is, a rule can do without
                logger.exception("the policy %s cannot decide; %s does", self.name, self.rule)
        return self.by_rule(observation, slo)

    def by_rule(self, observation: Observation, slo: SloClass) -> Choice:
        """Decide without the learned policy."""
        return Choice(self._fitting(self._rule.decide(observation, slo)), self.rule, None)

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
        levels, num_blocks = self._bundle.outcomes.frame_bytes.shape
        Plan(version=0, **decision._asdict()).check(num_blocks, levels)
        return decision

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


def _rule(args: SchedulerArgs, bundle: Bundle) -> Policy:
    manifest = bundle.manifest
    if args.policy == "static":
        plan = manifest.static_plan
        return Static(Decision(plan.partition, plan.thresholds, plan.level))
    thresholds = [calibration.thresholds for calibration in manifest.calibrations]
    profile = manifest.profiles["default"]
    return LeastLatency(profile, bundle.outcomes, thresholds, args.least_partition)
