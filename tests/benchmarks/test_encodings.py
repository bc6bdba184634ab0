import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from benchmarks import encodings
from benchmarks.encodings import ENCODINGS, EncodedEnv, Run, Trained, coordinates
from rl.environment import SchedulingVectorEnv
from rl.module import PPOModule, SACModule, layers_of
from rl.task import make_task
from xpi_ray.bundle import Bundle
from xpi_ray.link.traces import Trace
from xpi_ray.policies.learned import BOUND, FEATURES, GAP, SHORTLIST, Learned
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SLO_CLASSES
from xpi_ray.simulation.draw import Sources

CLASSES = len(SLO_CLASSES)


@pytest.fixture(scope="module")
def task():
    """The packaged bundle's, with a steady link."""
    steady = Trace("steady", 1.0, np.full(10, 2e6))
    return make_task(Bundle.load(), SLO_CLASSES, Sources([steady], [np.ones(60)]))


@pytest.fixture(scope="module")
def observations():
    """Of many machines, links and loads."""
    rng = np.random.default_rng(0)
    return [
        Observation(
            edge_slowdown=math.exp(rng.uniform(0, 4)),
            round_trip_ms=rng.uniform(1, 100),
            link_bps=math.exp(rng.uniform(math.log(1e5), math.log(1e8))),
            arrivals_rps=rng.uniform(1, 80),
        )
        for _ in range(30)
    ]


@pytest.fixture(scope="module")
def module_of():
    """Makes RLlib's module for an encoding, with random weights that matter."""

    def make(kind, space):
        torch.manual_seed(3)
        spec = RLModuleSpec(
            module_class=kind,
            observation_space=Box(-BOUND, BOUND, (FEATURES,), np.float32),
            action_space=space,
            model_config={**asdict(DefaultModelConfig(vf_share_layers=False)), "twin_q": True},
        )
        module = spec.build()
        for parameter in module.pi.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        return module

    return make


def actions_of(encoding, viewer):
    """As many as it takes to mean every plan that can be meant."""
    space = encoding.space
    return range(space.n) if isinstance(space, Discrete) else coordinates(viewer.candidates)


def meaning(encoding, viewer, view, plan):
    """An action that means this plan."""
    actions = actions_of(encoding, viewer)
    return next(action for action in actions if encoding.plan(view, action) == plan)


@pytest.mark.parametrize("name", ["every_plan", "box"])
def test_every_plan_has_an_action(task, name):
    """A box's plans are told apart, and each is meant by the point where it lies."""
    encoding = ENCODINGS[name](task.viewer)
    meant = [encoding.plan(None, action) for action in actions_of(encoding, task.viewer)]
    assert meant == list(range(len(task.viewer.candidates)))


@pytest.mark.parametrize("name", list(ENCODINGS))
def test_the_forecasts_choice_can_be_made(task, observations, name):
    """Whatever was seen, and whatever the deadline."""
    encoding, chosen = ENCODINGS[name](task.viewer), set()
    for observation in observations:
        for slo in SLO_CLASSES:
            view = task.viewer.view(observation, slo.deadline_ms)
            plan = view.shortlist[view.features[GAP].argmax()]
            action = meaning(encoding, task.viewer, view, plan)
            assert encoding.space.contains(np.asarray(action, encoding.space.dtype))
            chosen.add(plan)
    assert len(chosen) > 5


def test_a_box_spans_what_plans_have(task):
    """Each side from the least to the greatest, in equal steps for equal steps."""
    points, candidates = coordinates(task.viewer.candidates), task.viewer.candidates
    assert (points.min(0), points.max(0)) == (pytest.approx(0), pytest.approx(1))
    partitions = np.array([each.decision.partition for each in candidates])
    low, high = partitions.min(), partitions.max()
    assert partitions == pytest.approx(low + points[:, 0] * (high - low))
    strictest = points[[each.strictness == 0 for each in candidates], 1]
    exact = points[[each.decision.level == 0 for each in candidates], 2]
    assert not strictest.any()
    assert not exact.any()


@given(point=st.tuples(*[st.floats(0, 1, width=32)] * 3))
def test_a_box_means_the_nearest_plan(task, point):
    """No other plan lies nearer to the point."""
    plan = ENCODINGS["box"](task.viewer).plan(None, np.array(point, np.float32))
    distances = [math.dist(point, other) for other in coordinates(task.viewer.candidates)]
    assert distances[plan] == pytest.approx(min(distances))


@pytest.mark.parametrize("name", list(ENCODINGS))
def test_an_encoded_environment_rewards_plans(task, name):
    """The forecast's own are worth 0, others mostly not; any action of the space will do."""
    encoding = ENCODINGS[name](task.viewer)
    env = EncodedEnv(task, encoding, CLASSES, seed=1)
    env.reset()
    env.action_space.seed(2)
    others = 0
    for step in range(8):
        if step % 2:
            _, rewards, *_ = env.step(env.action_space.sample())
            others += np.count_nonzero(rewards)
        else:
            views = env._views
            plans = [view.shortlist[view.features[GAP].argmax()] for view in views]
            chosen = zip(views, plans, strict=True)
            actions = [meaning(encoding, task.viewer, view, plan) for view, plan in chosen]
            _, rewards, *_ = env.step(np.array(actions))
            assert not rewards.any()
    assert others > CLASSES


def test_the_shortlist_is_as_in_training(task):
    """Same seed and actions, same features and rewards."""
    encoded = EncodedEnv(task, ENCODINGS["shortlist"](task.viewer), CLASSES, seed=4)
    plain = SchedulingVectorEnv(task, CLASSES, seed=4)
    assert encoded.action_space == plain.action_space
    assert (encoded.reset()[0] == plain.reset()[0]).all()
    for step in range(3):
        actions = np.full(CLASSES, 5 * step % SHORTLIST)
        for ours, theirs in zip(encoded.step(actions), plain.step(actions), strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("kind", [PPOModule, SACModule])
def test_a_corrected_forecast_decides_as_served(task, observations, module_of, kind):
    """RLlib's module chooses the plans that the policy of its layers chooses."""
    encoding = ENCODINGS["shortlist_forecast"](task.viewer)
    module = module_of(kind, encoding.space)
    trained = Trained(task.viewer, encoding, module)
    served = Learned(task.viewer, layers_of(module))
    decisions = [
        [policy.decide(seen, slo) for seen in observations for slo in SLO_CLASSES]
        for policy in (trained, served)
    ]
    assert decisions[0] == decisions[1]
    assert len(set(decisions[0])) > 5


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_the_best_action_of_a_box_is_the_middle_of_those_explored(
    task, observations, module_of, algorithm
):
    """The median of many samples, number by number, as far as these lie in the box."""
    encoding = ENCODINGS["box"](task.viewer)
    module = module_of(encodings.PLAIN[algorithm], encoding.space)
    trained = Trained(task.viewer, encoding, module)
    for seen in observations:
        features = task.viewer.view(seen, SLO_CLASSES[0].deadline_ms).features
        with torch.no_grad():
            told = module.forward_exploration({Columns.OBS: torch.from_numpy(features)[None]})
        kind = module.get_exploration_action_dist_cls()
        explored = kind.from_logits(told[Columns.ACTION_DIST_INPUTS])
        samples = explored.sample(sample_shape=(50_001,))[:, 0].clip(-1, 1)
        middle = (samples.median(0).values + 1) / 2
        assert trained.action(features) == pytest.approx(middle.numpy(), abs=0.04)


def test_a_run_that_ended_is_not_run_again(tmp_path, monkeypatch):
    """Its row is read, and its decisions count as done; other steps make another run."""
    monkeypatch.setattr(encodings, "RUNS", tmp_path / "runs")
    run, told, measured = Run("ppo", "box", 2, 100, 4), [], []

    def measure(advance):
        measured.append(len(measured))
        return {"gain": float(len(measured))}

    rows = [
        encodings.kept(each, {"bundle": digest}, measure, told.append)
        for each, digest in (
            (run, "a"),
            (run, "a"),
            (run._replace(seed=1), "a"),
            (run._replace(steps=200), "a"),
            (run._replace(steps=200), "b"),
        )
    ]
    assert [row["gain"] for row in rows] == [1, 1, 2, 3, 4]
    assert told == [100]
