import dataclasses
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from deployments.args import SchedulerArgs
from deployments.deciding import Decider, name_of
from xpi_ray.errors import PlanError
from xpi_ray.policies.greedy import LeastLatency
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import Plan, SloClass

SLO = SloClass(name="tight", deadline_ms=20)
SEEN = Observation(edge_slowdown=3, arrivals_rps=5)


@pytest.fixture(scope="module")
def policy(bundle, make_policy):
    """A policy's file for the small bundle."""
    return make_policy(bundle)


def rewritten(policy, **changes):
    """The policy's file with other tensors."""
    return save({**load(policy), **changes})


def least_latency(bundle):
    """The rule that stands in."""
    manifest = bundle.manifest
    thresholds = [calibration.thresholds for calibration in manifest.calibrations]
    return LeastLatency(manifest.profiles["default"], bundle.outcomes, thresholds)


def test_the_bundles_policy_decides(bundle, policy):
    """Its name is its file's hash, and its plan is what it prefers."""
    decider = Decider(SchedulerArgs(), bundle.with_policy(policy))
    choice = decider.decide(SEEN, SLO)
    assert decider.name == choice.policy == name_of(policy)
    assert choice.decision == decider.learned.decide(SEEN, SLO)
    assert choice.pick.action == choice.pick.logits.argmax()


def test_a_file_takes_the_place_of_the_bundles(bundle, policy, make_policy, tmp_path):
    """The file is what decides then, and must be usable itself."""
    path = tmp_path / "policy.safetensors"
    path.write_bytes(make_policy(bundle, 1))
    args = SchedulerArgs(policy_file=str(path))
    assert Decider(args, bundle.with_policy(policy)).name == name_of(path.read_bytes())
    path.write_bytes(b"none")
    assert Decider(args, bundle.with_policy(policy)).name == "least_latency"


@pytest.mark.parametrize("rule", ["static", "least_latency"])
def test_a_rule_by_name_does_not_look_at_the_policy(bundle, policy, rule):
    """The bundle's policy is left alone where a rule was asked for."""
    decider = Decider(SchedulerArgs(policy=rule), bundle.with_policy(policy))
    choice = decider.decide(SEEN, SLO)
    assert (decider.name, choice.policy, choice.pick) == (rule, rule, None)
    static = bundle.manifest.static_plan
    expected = {
        "static": (static.partition, static.thresholds, static.level),
        "least_latency": least_latency(bundle).decide(SEEN, SLO),
    }
    assert choice.decision == expected[rule]


def test_without_a_policy_least_latency_decides(bundle, caplog):
    """It is told how to get one."""
    with caplog.at_level(logging.WARNING, "ray.serve"):
        decider = Decider(SchedulerArgs(), bundle)
    assert "xpi train-policy" in caplog.text
    assert decider.decide(SEEN, SLO).decision == least_latency(bundle).decide(SEEN, SLO)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": np.array([99])}, "version 99"),
        ({"kept": np.array([10**6])}, "of a bundle with other plans"),
        ({"kept": np.array([0])}, "kinds"),
        ({"biases2": np.full(12, np.nan, np.float32)}, "no numbers"),
        ({"weights0": np.zeros((64, 5), np.float32)}, "shape"),
        ({"version": np.array([])}, "no policy file"),
    ],
)
def test_a_policy_that_cannot_be_used_is_named_and_left(bundle, policy, changes, message, caplog):
    """Another version, another bundle, no numbers: the error is clear, the rule decides."""
    with caplog.at_level(logging.ERROR, "ray.serve"):
        decider = Decider(SchedulerArgs(), bundle.with_policy(rewritten(policy, **changes)))
    assert message in caplog.text
    assert decider.name == "least_latency"


def test_a_policy_must_keep_to_the_least_partition(bundle, policy, caplog):
    """One that may split earlier is not used; a rule that cannot keep to it is an error."""
    args = SchedulerArgs(least_partition=2)
    with caplog.at_level(logging.ERROR, "ray.serve"):
        assert Decider(args, bundle.with_policy(policy)).name == "least_latency"
    assert "least_partition is 2" in caplog.text
    with pytest.raises(PlanError, match="beyond the last block"):
        Decider(SchedulerArgs(least_partition=9), bundle)


def test_a_policy_that_is_refused_leaves_the_one_in_force(bundle, policy):
    """Adopting is all or nothing."""
    decider = Decider(SchedulerArgs(), bundle.with_policy(policy))
    before = decider.decide(SEEN, SLO).decision
    with pytest.raises(PlanError):
        decider.adopt(rewritten(policy, version=np.array([0])))
    assert decider.name == name_of(policy)
    assert decider.decide(SEEN, SLO).decision == before


def test_where_the_policy_fails_the_rule_decides(bundle, policy):
    """Layers whose sums overflow say no numbers; the plan is least latency's."""
    huge = {"biases1": np.full(64, 9.0, "f"), "weights2": np.full((12, 64), 3e38, "f")}
    with np.errstate(all="ignore"):
        decider = Decider(SchedulerArgs(), bundle.with_policy(rewritten(policy, **huge)))
        choice = decider.decide(SEEN, SLO)
    assert (choice.policy, choice.pick) == ("least_latency", None)
    assert choice.decision == least_latency(bundle).decide(SEEN, SLO)


def test_a_rule_that_does_not_fit_is_an_error(bundle):
    """A plan that the network has no blocks for never leaves."""
    plan = bundle.manifest.static_plan.model_copy(update={"partition": 9})
    manifest = bundle.manifest.model_copy(update={"static_plan": plan})
    decider = Decider(
        SchedulerArgs(policy="static"), dataclasses.replace(bundle, manifest=manifest)
    )
    with pytest.raises(PlanError, match="partition 9"):
        decider.decide(SEEN, SLO)


def test_chance_tries_other_plans(bundle, policy):
    """The same seed decides the same, and different ones find more than one plan."""
    decider = Decider(SchedulerArgs(), bundle.with_policy(policy))
    picks = [decider.decide(SEEN, SLO, [seed]) for seed in range(40)]
    again = [decider.decide(SEEN, SLO, [seed]) for seed in range(40)]
    assert [each.decision for each in picks] == [each.decision for each in again]
    assert len({each.decision for each in picks}) > 1


@settings(max_examples=200)
@given(data=st.data())
def test_no_file_leads_to_a_wrong_plan(bundle, policy, data):
    """Whatever bytes a policy's file has, the decision fits the network."""
    spoilt = bytearray(policy)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, 900), st.integers(0, len(policy) - 1)))
        spoilt[place] = data.draw(st.integers(0, 255))
    length = data.draw(st.one_of(st.just(len(spoilt)), st.integers(0, len(spoilt))))
    with np.errstate(all="ignore"):
        decider = Decider(SchedulerArgs(), bundle.with_policy(bytes(spoilt[:length])))
        choice = decider.decide(SEEN, SLO)
    levels, num_blocks = bundle.outcomes.frame_bytes.shape
    Plan(version=1, **choice.decision._asdict()).check(num_blocks, levels)
