import dataclasses
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from deployments.args import SchedulerArgs
from deployments.deciding import PEERS, Decider, _offline, name_of
from xpi_ray.errors import PlanError
from xpi_ray.policies import edgeml
from xpi_ray.policies.edgeml import STATE
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
    num_blocks = bundle.network.num_blocks
    Plan(version=1, **choice.decision._asdict()).check(num_blocks, bundle.num_levels)


@pytest.fixture
def edgeml_file(bundle, tmp_path):
    """The file of an EdgeML policy for the small bundle, whose actor says 0.5 to all."""
    layers = [(np.zeros((4, STATE), "f"), np.zeros(4, "f"))]
    path = tmp_path / "edgeml.safetensors"
    path.write_bytes(edgeml.to_bytes(layers, [1, 2, 3, 4], 4))
    return str(path)


@pytest.mark.parametrize("name", sorted(PEERS))
def test_a_peer_decides_by_its_name(bundle, edgeml_file, name):
    """Each peer's policy makes plans that fit, and tells its name; all keep to the least block."""
    decider = Decider(SchedulerArgs(policy=name, policy_file=edgeml_file), bundle)
    assert decider.name == name
    for link_bps in (1e4, 1e7, 1e9):
        choice = decider.decide(Observation(link_bps=link_bps), SLO, site="site-1")
        assert (choice.policy, choice.pick) == (name, None)
        assert choice.decision.partition >= 1
        assert choice.decision.level == 0


@pytest.mark.parametrize("name", ["edgent_dynamic", "spinn", "edgeml"])
def test_each_site_has_a_past_of_its_own(bundle, edgeml_file, name):
    """What one site saw does not change what another's policy decides."""
    args = SchedulerArgs(policy=name, policy_file=edgeml_file, least_partition=0)
    both, alone = Decider(args, bundle), Decider(args, bundle)
    for number in range(10):
        both.decide(Observation(link_bps=1e4), SLO, site="slow")
        seen = Observation(link_bps=1e9 / (1 + number))
        quick = both.decide(seen, SLO, site="quick")
        assert quick == alone.decide(seen, SLO, site="quick")


def test_offline_profiles_are_the_machines_own(bundle):
    """An edge that was measured counts; else the factor that is known; layers make the shares."""
    manifest = bundle.manifest
    default = manifest.profiles["default"]
    layers = default.model_copy(update={"block_ms": (4.0, 3.0, 2.0, 1.0)})

    def times(site="a", slowdown=1.0, **profiles):
        changed = manifest.model_copy(update={"profiles": {**manifest.profiles, **profiles}})
        args = SchedulerArgs(policy="edgent", edge_slowdown=slowdown)
        cloud = changed.profile_of("cloud")
        table = _offline(args, dataclasses.replace(bundle, manifest=changed), site, cloud)
        return table.latency_ms(1e30, 0.0)[[4, 0], 3]  # all at the edge, all in the cloud

    whole = sum(default.block_ms)
    decoding = default.decode_ms
    assert times() == pytest.approx([whole, whole + decoding])
    assert times(slowdown=5.0) == pytest.approx([5 * whole, whole + decoding])
    own = {"edge:a": default.slowed(3), "edge": default.slowed(2), "cloud": default.slowed(7)}
    assert times(slowdown=5.0, **own) == pytest.approx([3 * whole, 7 * (whole + decoding)])
    assert times("b", **own)[0] == pytest.approx(2 * whole)
    found = times(layers=layers, **own)
    assert found == pytest.approx([3 * 10, 7 * (10 + decoding)])


def test_a_peer_that_cannot_be_made_is_named_and_left(bundle, policy, tmp_path, caplog):
    """EdgeML without a file, or with another policy's: least latency decides."""
    path = tmp_path / "other.safetensors"
    path.write_bytes(policy)
    for file in (None, str(tmp_path / "missing"), str(path)):
        caplog.clear()
        with caplog.at_level(logging.ERROR, "ray.serve"):
            decider = Decider(SchedulerArgs(policy="edgeml", policy_file=file), bundle)
        assert "edgeml is not used" in caplog.text
        assert decider.name == "least_latency"
        assert decider.decide(SEEN, SLO).decision == least_latency(bundle).decide(SEEN, SLO)


def test_where_a_peer_fails_least_latency_decides(bundle, tmp_path):
    """An actor whose sums overflow says no numbers."""
    huge = np.full((4, STATE), 3e38, "f")
    apart = np.tile([3e38, -3e38], (4, 2)).astype("f")
    layers = [(huge, np.zeros(4, "f")), (apart, np.zeros(4, "f"))]
    path = tmp_path / "edgeml.safetensors"
    path.write_bytes(edgeml.to_bytes(layers, [1, 2, 3, 4], 4))
    decider = Decider(SchedulerArgs(policy="edgeml", policy_file=str(path)), bundle)
    with np.errstate(all="ignore"):
        choice = decider.decide(SEEN, SLO)
    assert choice.policy == "least_latency"
    assert choice.decision == least_latency(bundle).decide(SEEN, SLO)
