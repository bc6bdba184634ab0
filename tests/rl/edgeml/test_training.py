import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchSquashedGaussian

from rl.edgeml.environment import EdgeMLVectorEnv, World
from rl.edgeml.training import VALIDATION_SEED, VALIDATION_SITES, Progress, actor_of, validate
from xpi_ray.bundle import Bundle
from xpi_ray.policies.edgeml import HIDDEN, STATE, act, from_bytes

pytestmark = pytest.mark.ray

# In a process of its own: Ray may run in this one already, and RLlib warns of its own code.
SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import rl.edgeml.training as training
from rl.edgeml.environment import make_world
from rl.training import quiet_ray
from xpi_ray.bundle import Bundle
from xpi_ray.link.traces import Trace
from xpi_ray.policies.edgeml import from_bytes
from xpi_ray.policies.plan import SloClass
from xpi_ray.simulation.draw import Sources

folder = Path(sys.argv[1])
bundle = Bundle.load()
classes = (SloClass(name="a", deadline_ms=20), SloClass(name="b", deadline_ms=150))
sources = Sources([Trace("steady", 1.0, np.array([2e6]))], [np.ones(60)])
world = replace(make_world(bundle, classes, sources), periods=4)
training.VALIDATION_SITES, training.VALIDATE_EVERY = 3, 200
quiet_ray()
rows = [row._asdict() for row in training.train(world, folder, 0, 400, sites=2)]
data = (folder / "policy.safetensors").read_bytes()
kept = from_bytes(data, world.setting.profile, bundle.outcomes)
print(json.dumps({"rows": rows, "kept": training.validate(world, list(kept.layers))}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the run leaves its files."""
    return tmp_path_factory.mktemp("edgeml")


@pytest.fixture(scope="module")
def told(folder):
    """What a short training told."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_training_tells_its_curve_and_keeps_the_best_policy(told, folder):
    """The file is worth what the best row says, and its actor is EdgeML's."""
    rows = told["rows"]
    steps = [row["steps"] for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] >= 400
    lines = (folder / "curve.csv").read_text().splitlines()
    assert lines[0].split(",") == list(Progress._fields)
    assert len(lines) == len(rows) + 1
    assert told["kept"] == pytest.approx(max(row["validation"] for row in rows))
    bundle = Bundle.load()
    data = (folder / "policy.safetensors").read_bytes()
    policy = from_bytes(data, bundle.manifest.profiles["default"], bundle.outcomes)
    exits = bundle.outcomes.entropy.shape[1]
    shapes = [weights.shape for weights, _ in policy.layers]
    assert shapes == [(HIDDEN, STATE), (exits, HIDDEN)]


def test_the_policy_learns(told):
    """Validations differ as the actor changes."""
    assert len({row["validation"] for row in told["rows"]}) > 1


def test_validation_is_the_mean_reward_of_an_episode(task):
    """Of the same sites whenever it is asked."""
    world = World(task.setting, task.sources, period_s=task.period_s, periods=task.periods)
    layers = [(np.zeros((4, STATE), np.float32), np.array([-3, -3, -3, 0.2], np.float32))]
    env = EdgeMLVectorEnv(world, 3 * VALIDATION_SITES)
    states, _ = env.reset(seed=VALIDATION_SEED)
    rewards = []
    for _ in range(world.periods):
        states, reward, *_ = env.step(act(layers, states))
        rewards.append(reward)
    found = validate(world, layers)
    assert found == validate(world, layers) == pytest.approx(np.mean(rewards))


class _Module:
    """A stand-in for RLlib's module: two layers, of the last one half says the spread."""

    class pi:
        layers = torch.nn.ModuleList([torch.nn.Linear(STATE, 5), torch.nn.Linear(5, 6)])


def test_of_the_actor_the_means_are_kept():
    """The mean of RLlib's distribution, squashed to 0..1, is what is served."""
    states = torch.randn(7, STATE)
    with torch.no_grad():
        first, last = _Module.pi.layers
        said = last(first(states).relu())
    distribution = TorchSquashedGaussian.from_logits(said)
    expected = (distribution.loc.tanh() + 1) / 2
    found = act(actor_of(_Module), states.numpy())
    assert found == pytest.approx(expected.numpy(), abs=1e-5)
