import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from xpi_ray.bundle import WEIGHTS
from xpi_ray.training.losses import Manipulation
from xpi_ray.training.recipes import RECIPES

XPI_TRAIN = """
import sys

import torch
import typer

from xpi_ray.networks.xpi import XpiNetwork, XpiSpec
from xpi_ray.training import command
from xpi_ray.training.data import Split, Splits
from xpi_ray.training.networks import ARCHITECTURES, Architecture
from xpi_ray.training.recipes import RECIPES, Recipe

torch.set_num_threads(1)
spec, recipe, *splits = torch.load("tiny.pt", weights_only=True)
splits = Splits("tiny", tuple("abcde"), *(Split(*split) for split in splits))
command.load = lambda name: splits
spec = XpiSpec.model_validate_json(spec)
ARCHITECTURES["xpi12"] = Architecture(lambda splits: XpiNetwork(spec), "xai_quantized", 0.1)
RECIPES["xai_quantized"] = Recipe.model_validate_json(recipe)
app = typer.Typer()
app.command()(command.train)
app()
"""


@pytest.fixture
def xpi_train_process(tmp_path, spec, separable):
    """Starts `xpi train` with its default training, on a tiny network and data set."""
    (tmp_path / "xpi_train.py").write_text(XPI_TRAIN)
    splits = [tuple(split) for split in separable[2:]]
    manipulation = Manipulation(reference_steps=2)
    recipe = RECIPES["xai_quantized"].model_copy(update={"manipulation": manipulation})
    torch.save([spec.model_dump_json(), recipe.model_dump_json(), *splits], tmp_path / "tiny.pt")
    options = ["--batch-size", "32", "--epochs", "12"]

    def start(folder, *more):
        return subprocess.Popen(
            [sys.executable, "xpi_train.py", "tiny", "--output", folder, *options, *more],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return start


def test_a_run_that_was_killed_ends_as_an_unbroken_one(xpi_train_process, tmp_path):
    """Killed at a random moment and resumed: the same weights to the last bit."""
    seed = random.randrange(1 << 32)
    print("seed of the moment:", seed)
    assert xpi_train_process("unbroken").wait() == 0
    started, ended = (
        (tmp_path / "unbroken" / name).stat().st_mtime for name in ("config.json", "checkpoint.pt")
    )
    victim = xpi_train_process("killed")
    while not (tmp_path / "killed" / "config.json").exists():
        assert victim.poll() is None
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, ended - started))
    victim.kill()
    assert victim.wait() in (-signal.SIGKILL, 0)  # 0: this time it was quicker
    logged = tmp_path / "killed" / "log.csv"
    print("lines of its log:", len(logged.read_text().splitlines()) if logged.exists() else 0)
    assert xpi_train_process("killed", "--resume").wait() == 0
    ends = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("unbroken", "killed")
    ]
    epochs = [line.split(",")[0] for line in logged.read_text().splitlines()]
    assert epochs == ["epoch", *map(str, range(1, 13))]
    for part in ("network", "objective"):
        for name, values in ends[0][part].items():
            assert torch.equal(ends[1][part][name], values), name
    bundles = [tmp_path / name / "bundle" / WEIGHTS for name in ("unbroken", "killed")]
    assert bundles[0].read_bytes() == bundles[1].read_bytes()
