import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from xpi_ray.bundle import Bundle
from xpi_ray.errors import DataError, TrainingError
from xpi_ray.training import attach_command, packing
from xpi_ray.training.attach_command import attach
from xpi_ray.training.trainer import exit_accuracies

MODELS = """
import torch
from torch import nn

def small(classes=5, wide=6):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, wide, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(wide, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes),
    )

def wide():
    return small(wide=257)

def other():
    return small(classes=7)

def none():
    return "a model"
"""
QUICK = ("--epochs", "1", "--batch-size", "80")


@pytest.fixture
def xpi_attach(monkeypatch, separable, tmp_path):
    """Run `xpi attach` on the tiny data set, in a folder that holds models of ours."""
    monkeypatch.setattr(attach_command, "load", lambda name: separable._replace(name=name))
    monkeypatch.setattr(packing, "RESUMED", 10)
    monkeypatch.setattr(packing, "LADDER_IMAGES", 40)
    monkeypatch.chdir(tmp_path)
    module = f"models_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(MODELS)
    app = typer.Typer()
    app.command()(attach)

    def run(model, *options):
        name = f"{module}:{model}" if ":" not in model else model
        return CliRunner().invoke(app, [name, "tiny", "--output", "run", *QUICK, *options])

    return run


def test_a_run_ends_in_a_bundle(xpi_attach, separable, tmp_path):
    """That answers as the trained network; a row for each exit, and the model's own accuracy."""
    result = xpi_attach("small", "--version", "3")
    assert result.exit_code == 0, result.output
    assert "the model's own validation accuracy is" in result.stderr
    rows = [line.split("│")[1].strip() for line in result.stdout.splitlines() if "│" in line]
    assert rows == ["1", "2", "3"]
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    manifest = bundle.manifest
    assert (manifest.name, manifest.version, manifest.codec) == ("tiny", "3", "ladder")
    assert manifest.network.kind == "branched"
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["network"]
    assert all(torch.equal(v, saved[name]) for name, v in bundle.network.state_dict().items())


def test_json_goes_to_stdout_alone(xpi_attach, separable, tmp_path):
    """One document; frozen, the last exit is as good as the model; resumed, it tells it again."""
    options = ("--frozen", "--json", "--mean", "0", "0", "0", "--std", "1", "1", "1")
    first = xpi_attach("small", *options)
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert told["validation_accuracy"][-1] == told["model_accuracy"]
    network = Bundle.load(tmp_path / told["bundle"]).network
    assert network.spec.std == (1, 1, 1)
    assert exit_accuracies(network, separable.validation) == told["validation_accuracy"]
    assert xpi_attach("small", *options, "--resume").stdout == first.stdout


def test_exits_are_where_they_are_wanted(xpi_attach, tmp_path):
    """All, some, or so many; a wide carry gets a codec that learns nothing."""
    for exits, numbers in (("2", 2), ("2,", None), ("1,2", 3), ("1", 1)):
        result = xpi_attach("wide", "--exits", exits, "--restart", "--json")
        if numbers is None:
            assert isinstance(result.exception, TrainingError)
            continue
        assert result.exit_code == 0, result.output
        assert len(json.loads(result.stdout)["validation_accuracy"]) == numbers
        codec = Bundle.load(tmp_path / "run" / "bundle").manifest.codec
        assert codec == ("ladder" if numbers == 1 else "shuffled_lz4")


def test_a_run_is_replaced_or_resumed_only_if_that_is_asked_for(xpi_attach):
    """And never as another one."""
    assert xpi_attach("small", "--frozen").exit_code == 0
    result = xpi_attach("small", "--frozen")
    assert isinstance(result.exception, TrainingError)
    assert "distilled of exits all of" in str(result.exception)
    assert isinstance(xpi_attach("small", "--resume").exception, DataError)
    assert xpi_attach("small", "--restart").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nobody:model",), "cannot import the model 'nobody:model'"),
        (("math:nothing",), "math holds no callable 'nothing'"),
        (("none",), "must return a torch.nn.Module, got str"),
        (("other",), "maps an image to logits (1, 5), got (1, 7)"),
        (("small", "--exits", "some"), "expected --exits all, a number, or places"),
        (("small", "--exits", "9"), "expected 1 to 3 exits"),
        (("small", "--training", "xai"), "only networks of Xpi blocks"),
        (("small", "--training", "xia"), "unknown training 'xia'"),
        (("small", "--version", "two words"), "cannot carry the version"),
        (("small", "--peak-learning-rate", "0"), "a learning rate above 0"),
        (("small", "--exits", "1", "--frozen"), "has nothing to learn"),
    ],
)
def test_what_cannot_end_well_is_not_begun(xpi_attach, tmp_path, arguments, message):
    """It is refused before anything is trained or written."""
    result = xpi_attach(*arguments)
    assert isinstance(result.exception, TrainingError)
    assert message in str(result.exception)
    assert not (tmp_path / "run").exists()
