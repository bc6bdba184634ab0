import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rl.contest import drive, untrained
from rl.training import VALIDATION_SITES, Progress, validate
from xpi_ray.bundle import Bundle
from xpi_ray.policies.learned import from_bytes
from xpi_ray.simulation.cluster import utilities
from xpi_ray.simulation.draw import draw_site

pytestmark = pytest.mark.ray

# In a process of its own: Ray may run in this one already, and RLlib warns of its own code.
SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from rl.contest import untrained
from rl.module import layers_of
from rl.task import make_task
import rl.training
from rl.training import Training, quiet_ray, validate
from xpi_ray.bundle import Bundle
from xpi_ray.link.traces import Trace
from xpi_ray.policies.learned import SHARPNESS, Learned, from_bytes
from xpi_ray.policies.plan import SloClass
from xpi_ray.simulation.draw import Sources

folder = Path(sys.argv[1])
bundle = Bundle.load()
classes = [SloClass(name="a", deadline_ms=20), SloClass(name="b", deadline_ms=150)]
sources = Sources([Trace("steady", 1.0, np.array([2e6]))], [np.ones(60)])
task = replace(make_task(bundle, classes, sources), periods=4)
configure = rl.training.configure
def impatient(task, algorithm, *rest):
    config = configure(task, algorithm, *rest)
    if algorithm == "sac":
        config.training(num_steps_sampled_before_learning_starts=200)
    return config
rl.training.configure = impatient
rl.training.VALIDATION_SITES = 8
quiet_ray()
told = {}
for algorithm, counts, sites in (("ppo", (1_000, 2_000), 4), ("sac", (500, 1_000), 2)):
    told[algorithm] = parts = []
    for steps in counts:
        training = Training(task, algorithm, 0, folder / algorithm, steps, sites)
        begins = [weights.tolist() for weights, _ in layers_of(training._algorithm.get_module())]
        rows = [row._asdict() for row in training.run()]
        ends = [weights.tolist() for weights, _ in layers_of(training._algorithm.get_module())]
        training.close()
        parts.append({"rows": rows, "begins": begins, "ends": ends, "facts": training.facts()})
    data = training.policy_path.read_bytes()
    kept = Learned(task.viewer, from_bytes(data, task.setting.profile, bundle.candidates()).layers)
    gained = validate(task, kept) - validate(task, untrained(task.viewer))
    parts[-1]["kept"] = SHARPNESS * gained.mean()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where both algorithms leave their runs."""
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def told(folder):
    """What two sessions of each algorithm told, the second of which went on from the first."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_training_learns_and_can_be_stopped(told, folder, algorithm):
    """The second session begins with the weights and counts of the first; one curve tells all."""
    first, second = told[algorithm]
    assert first["begins"] != first["ends"] == second["begins"] != second["ends"]
    rows = first["rows"] + second["rows"]
    for name in ("steps", "seconds"):
        values = [row[name] for row in rows]
        assert values == sorted(set(values)), name
    assert rows[-1]["steps"] == second["facts"]["steps"] >= 1_000
    lines = (folder / algorithm / "curve.csv").read_text().splitlines()
    assert lines[0].split(",") == list(Progress._fields)
    assert [int(line.split(",")[0]) for line in lines[1:]] == [row["steps"] for row in rows]


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_the_best_policy_on_validation_is_kept(told, folder, algorithm):
    """It fits the bundle, and is worth again what it was worth then; else it is the forecast."""
    measured = [
        row["validation"]
        for part in told[algorithm]
        for row in part["rows"]
        if row["validation"] == row["validation"]
    ]
    last = told[algorithm][-1]
    assert last["facts"]["best"] == max(0.0, *measured) == pytest.approx(last["kept"])
    bundle = Bundle.load()
    data = (folder / algorithm / "policy.safetensors").read_bytes()
    from_bytes(data, bundle.manifest.profiles["default"], bundle.candidates())


def test_validation_is_what_requests_are_worth(task):
    """Of each site by itself; the same sites whenever it is asked, others for another seed."""
    policy = untrained(task.viewer)
    worth = validate(task, policy, seed=7)
    assert worth.shape == (VALIDATION_SITES,)
    site = draw_site(
        task.setting,
        task.sources,
        task.periods * task.period_s,
        np.random.default_rng([7, 3]),
    )
    rows = drive(task, site, policy, task.periods * task.period_s)
    assert worth[3] == pytest.approx(utilities(rows, task.viewer.weights).sum() / max(len(rows), 1))
    assert (validate(task, policy, seed=7) == worth).all()
    assert (validate(task, policy, seed=8) != worth).any()
