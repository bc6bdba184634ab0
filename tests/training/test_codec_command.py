"""`xpi train-codec`."""

import json

import pytest
import typer
from typer.testing import CliRunner

from xpi_ray.bundle import Bundle
from xpi_ray.compression.ladder import LAYERS, LEVELS
from xpi_ray.errors import DataError, TrainingError
from xpi_ray.training import codec_command, transforms
from xpi_ray.training.packing import pack


@pytest.fixture
def plain(spec, make_network, splits, tmp_path):
    """A saved bundle without learned levels."""
    bundle = pack(make_network(spec), splits, "7", centres={})
    bundle.save(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.fixture
def run(monkeypatch, splits):
    """Runs the command with arguments on the data set of noise."""
    monkeypatch.setattr(codec_command, "load", lambda name: splits)
    monkeypatch.setattr(transforms, "MOST_ROUNDS", 1)
    app = typer.Typer()
    app.command()(codec_command.train_codec)

    def call(*args):
        return CliRunner().invoke(app, [str(arg) for arg in args])

    return call


def test_a_bundle_gains_the_learned_levels(run, plain, tmp_path):
    """The network and the version stay as they were; the ladder has two levels more."""
    folder = tmp_path / "run"
    result = run(plain, "--output", folder, "--steps", 100, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["bundle"] == str(folder / "bundle")
    assert [level["level"] for level in told["levels"]] == list(range(LEVELS))
    old, new = Bundle.load(plain), Bundle.load(folder / "bundle")
    assert (old.ladder.levels, new.ladder.levels) == (LAYERS, LEVELS)
    assert new.manifest.version == old.manifest.version
    for name, tensor in old.network.state_dict().items():
        assert tensor.equal(new.network.state_dict()[name])
    assert new.outcomes.frame_bytes.shape[0] == LEVELS


def test_early_blocks_may_do_without(run, plain, tmp_path):
    """Only carries from the first block on get learned levels; there must be such a carry."""
    folder = tmp_path / "run"
    assert run(plain, "--output", folder, "--steps", 100, "--first-block", 3).exit_code == 0
    new = Bundle.load(folder / "bundle")
    assert [new.ladder.levels_at(partition) for partition in (1, 2, 3)] == [LAYERS, LAYERS, LEVELS]
    assert not (folder / "block2.pt").exists()
    refused = run(plain, "--output", folder, "--first-block", 4).exception
    assert isinstance(refused, TrainingError)
    assert "below the 4 blocks" in str(refused)


def test_the_table_is_for_people(run, plain, tmp_path):
    """A line a level, and what to do next."""
    result = run(plain, "--output", tmp_path / "run", "--steps", 100, "--first-block", 3)
    assert "accuracy of the last exit" in result.stdout
    assert f"xpi serve --bundle {tmp_path / 'run' / 'bundle'}" in result.stdout.replace("\n", "")


def test_a_run_goes_on_and_is_not_mixed_with_another(run, plain, tmp_path):
    """Called again it trains nothing; called with other settings it says what to do."""
    folder = tmp_path / "run"
    options = ("--output", folder, "--first-block", 3, "--steps")
    run(plain, *options, 100)
    before = (folder / "block3.pt").stat().st_mtime_ns
    assert run(plain, *options, 100).exit_code == 0
    assert (folder / "block3.pt").stat().st_mtime_ns == before
    assert isinstance(run(plain, *options, 120).exception, DataError)


def test_a_network_of_another_make_is_refused(run, plain, monkeypatch):
    """One that `xpi train` did not make has nothing to pack it by."""
    loaded = Bundle.load(plain)
    monkeypatch.setattr(codec_command, "XpiNetwork", int)
    monkeypatch.setattr(codec_command.Bundle, "load", lambda path: loaded)
    assert isinstance(run(plain).exception, TrainingError)
