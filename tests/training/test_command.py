import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from xpi_ray.bundle import Bundle
from xpi_ray.errors import DataError
from xpi_ray.training import command
from xpi_ray.training.command import colour_statistics, train
from xpi_ray.training.trainer import read_weights


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
    result = xpi_train("--epochs", "1", "--version", "3")
    assert result.exit_code == 0, result.output
    assert "tiny, 1 epochs" in result.stdout
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
    first = xpi_train("--epochs", "1", "--json")
    document = json.loads(first.stdout)
    assert document["bundle"] == str(tmp_path / "run" / "bundle")
    assert len(document["validation_accuracy"]) == 12
    assert xpi_train("--epochs", "1", "--json", "--resume").stdout == first.stdout
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2


def test_a_run_may_start_from_anothers_weights(xpi_train, tmp_path):
    """With next to no learning rate, `--start-from` ends with the weights of the other run."""
    assert xpi_train("--epochs", "1").exit_code == 0
    first, second = tmp_path / "run", tmp_path / "second"
    result = xpi_train(
        "--epochs", "1", "--seed", "9", "--peak-learning-rate", "1e-9",
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


def test_colours_are_measured_on_their_own():
    """Mean and deviation are per colour and in 0..1."""
    images = torch.zeros(10, 3, 4, 4, dtype=torch.uint8)
    images[:, 1] = 255
    images[:5, 2] = 255
    mean, std = colour_statistics(images)
    assert mean == pytest.approx((0, 1, 0.5))
    assert std == pytest.approx((0, 0, 0.5), abs=0.01)
