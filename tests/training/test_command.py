import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from xpi_ray.bundle import WEIGHTS, Bundle
from xpi_ray.errors import DataError, TrainingError
from xpi_ray.networks.resnet import CifarResNet
from xpi_ray.training import command
from xpi_ray.training.command import colour_statistics, train
from xpi_ray.training.recipes import RECIPES
from xpi_ray.training.trainer import exit_accuracies, read_weights

PLAIN = ("--training", "plain_joint", "--epochs", "1")


@pytest.fixture
def xpi_train(monkeypatch, separable, tmp_path):
    """Run `xpi train` on the tiny data set, in a folder of the test's own."""
    monkeypatch.setattr(command, "load", lambda name: separable._replace(name=name))
    app = typer.Typer()
    app.command()(train)
    options = ["--output", str(tmp_path / "run"), "--batch-size", "80"]
    return lambda *args: CliRunner().invoke(app, ["tiny", *options, *args])


def test_a_run_ends_in_a_bundle(xpi_train, tmp_path):
    """The folder holds settings, log, checkpoint and a bundle that loads; a row for each exit."""
    result = xpi_train(*PLAIN, "--version", "3")
    assert result.exit_code == 0, result.output
    assert "tiny, plain_joint, 1 epochs" in result.stdout
    assert result.stdout.count("%") == 12
    folder = tmp_path / "run"
    files = {"bundle", "config.json", "log.csv", "checkpoint.pt"}
    assert {file.name for file in folder.iterdir()} == files
    bundle = Bundle.load(folder / "bundle")
    assert (bundle.manifest.name, bundle.manifest.version) == ("tiny", "3")
    assert bundle.network.num_blocks == 12
    trained = torch.load(folder / "checkpoint.pt", weights_only=True)["network"]
    for name, weights in bundle.network.state_dict().items():
        assert torch.equal(weights, trained[name])


def test_json_goes_to_stdout_alone(xpi_train, tmp_path):
    """`--json` prints one document, and `--resume` tells a finished run's accuracy again."""
    first = xpi_train(*PLAIN, "--json")
    document = json.loads(first.stdout)
    assert document["bundle"] == str(tmp_path / "run" / "bundle")
    assert len(document["validation_accuracy"]) == 12
    assert xpi_train(*PLAIN, "--json", "--resume").stdout == first.stdout
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2


def test_a_run_may_start_from_anothers_weights(xpi_train, tmp_path):
    """With next to no learning rate, `--start-from` ends with the weights of the other run."""
    assert xpi_train(*PLAIN).exit_code == 0
    first, second = tmp_path / "run", tmp_path / "second"
    result = xpi_train(
        *PLAIN, "--seed", "9", "--peak-learning-rate", "1e-9",
        "--start-from", str(first), "--output", str(second),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    before, after = read_weights(first), read_weights(second)
    for name in (name for name in before if name.endswith("weight")):
        assert torch.allclose(after[name], before[name], atol=1e-6), name


def test_a_start_from_nowhere_is_refused(xpi_train, tmp_path):
    """A folder that is no run's is named."""
    result = xpi_train("--start-from", str(tmp_path))
    assert isinstance(result.exception, DataError)
    assert "expected the folder of a run" in str(result.exception)


@pytest.mark.parametrize(
    "options", [("--training", "distilled"), ("--architecture", "lite12"), ("--start-from", "run")]
)
def test_a_run_of_another_purpose_is_not_resumed(xpi_train, tmp_path, monkeypatch, options):
    """Another training, network or start is refused, and the message tells the run's purpose."""
    monkeypatch.chdir(tmp_path)
    assert xpi_train(*PLAIN).exit_code == 0
    result = xpi_train(*PLAIN, *options, "--resume")
    assert isinstance(result.exception, DataError)
    assert "'purpose': 'plain_joint of xpi12 on tiny from None" in str(result.exception)


def quick(name):
    """A recipe with reference networks that are hardly fitted."""
    chosen = RECIPES[name]
    manipulation = chosen.manipulation.model_copy(update={"reference_steps": 2})
    return chosen.model_copy(update={"manipulation": manipulation})


def test_the_default_training_learns_centres(xpi_train, tmp_path, monkeypatch):
    """Blocks take turns, and the bundle holds what carries were quantised with."""
    monkeypatch.setitem(RECIPES, "xai_quantized", quick("xai_quantized"))
    result = xpi_train("--epochs", "2")
    assert result.exit_code == 0, result.output
    assert "tiny, xai_quantized, 2 epochs" in result.stdout
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["objective"]
    assert len(bundle.centres) == 11 * 3
    for name, values in bundle.centres.items():
        trained = saved[f"quantization._centres.{name}.values"]
        assert torch.equal(values, trained.sort().values)


def test_half_the_bits_are_half_the_bundle(xpi_train, separable, tmp_path):
    """`--half` rounds the weights, and the accuracy that is told is that of the rounded ones."""
    sizes = []
    for options in ((), ("--half", "--resume")):
        result = xpi_train(*PLAIN, "--json", *options)
        assert result.exit_code == 0, result.output
        sizes.append((tmp_path / "run" / "bundle" / WEIGHTS).stat().st_size)
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.05)
    network = Bundle.load(tmp_path / "run" / "bundle").network
    trained = read_weights(tmp_path / "run")
    for name, value in network.state_dict().items():
        assert torch.equal(value, trained[name].half().to(value.dtype)), name
    told = json.loads(result.stdout)["validation_accuracy"]
    assert told == exit_accuracies(network, separable.validation)


def test_a_fine_tune_has_a_folder_of_its_own(xpi_train, tmp_path):
    """It is logged there, for its own epochs."""
    result = xpi_train(*PLAIN, "--fine-tune-epochs", "2")
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "run" / "fine-tune" / "log.csv").read_text().splitlines()) == 3
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2


def test_a_fine_tune_of_an_older_run_is_not_taken_up(xpi_train, tmp_path):
    """A new run in the folder, stopped before its fine-tune and resumed, makes its own."""
    tuned, new = ("--fine-tune-epochs", "1"), ("--training", "plain_joint", "--epochs", "2")
    unbroken = ("--output", str(tmp_path / "unbroken"))
    for options in ((*PLAIN, *tuned), new, (*new, *tuned, "--resume"), (*new, *tuned, *unbroken)):
        result = xpi_train(*options)
        assert result.exit_code == 0, result.output
    found = read_weights(tmp_path / "run" / "fine-tune")
    for name, expected in read_weights(tmp_path / "unbroken" / "fine-tune").items():
        assert torch.equal(found[name], expected), name


def test_a_teacher_is_read_and_heard(xpi_train, tmp_path, monkeypatch):
    """With one the same run ends with other weights; a file that is none is refused."""
    path = tmp_path / "teacher.npz"
    torch.manual_seed(0)
    np.savez(path, **{n: v.numpy() for n, v in CifarResNet(1, 5).state_dict().items()})
    weights = []
    for options in ((), ("--teacher", str(path))):
        result = xpi_train(*PLAIN, *options)
        assert result.exit_code == 0, result.output
        weights.append(read_weights(tmp_path / "run")["blocks.0.extractor.conv.0.weight"])
    assert not torch.equal(*weights)
    result = xpi_train(*PLAIN, "--teacher", str(tmp_path / "nobody.npz"))
    assert isinstance(result.exception, DataError)
    np.savez(path, **{n: v.numpy() for n, v in CifarResNet(1, 9).state_dict().items()})
    result = xpi_train(*PLAIN, "--teacher", str(path))
    assert isinstance(result.exception, TrainingError)
    assert "tells 9 classes apart and the data set has 5" in str(result.exception)


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [("--architecture", "xpi13", "xpi12 or lite12"), ("--training", "xia", "plain_joint")],
)
def test_unknown_names_are_refused(xpi_train, option, value, known):
    """The message names what there is."""
    result = xpi_train(option, value)
    assert isinstance(result.exception, TrainingError)
    assert value in str(result.exception)
    assert known in str(result.exception)


XPI_TRAIN = """
import sys

import torch
import typer

from xpi_ray.networks.xpi import XpiNetwork, XpiSpec
from xpi_ray.training import command
from xpi_ray.training.data import Split, Splits
from xpi_ray.training.recipes import RECIPES, Recipe

torch.set_num_threads(1)
spec, recipe, *splits = torch.load("tiny.pt", weights_only=True)
splits = Splits("tiny", tuple("abcde"), *(Split(*split) for split in splits))
command.load = lambda name: splits
command.new_network = lambda architecture, splits: XpiNetwork(XpiSpec.model_validate_json(spec))
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
    recipe = quick("xai_quantized").model_dump_json()
    torch.save([spec.model_dump_json(), recipe, *splits], tmp_path / "tiny.pt")
    options = ["--batch-size", "32", "--epochs", "12", "--peak-learning-rate", "0.1"]

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


def test_colours_are_measured_on_their_own():
    """Mean and deviation are per colour and in 0..1."""
    images = torch.zeros(10, 3, 4, 4, dtype=torch.uint8)
    images[:, 1] = 255
    images[:5, 2] = 255
    mean, std = colour_statistics(images)
    assert mean == pytest.approx((0, 1, 0.5))
    assert std == pytest.approx((0, 0, 0.5), abs=0.01)
