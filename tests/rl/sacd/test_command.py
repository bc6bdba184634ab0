import json

import pytest
import typer
from typer.testing import CliRunner

from rl.sacd import command, measuring
from rl.sacd.costs import Costs
from rl.sacd.training import TrainingConfig


def test_a_run_ends_with_the_costs(noise, tmp_path, monkeypatch):
    """One epoch on noise: the folder holds what the benchmark reads, told as JSON."""
    monkeypatch.setattr(command, "load", lambda name: noise)
    monkeypatch.setattr(command, "TrainingConfig", lambda epochs, seed: CONFIG)
    monkeypatch.setattr(measuring, "CODED", 2)
    monkeypatch.setattr(measuring.layer_ms, "__defaults__", (1,))
    app = typer.Typer()
    app.command()(command.train_sacd)
    result = CliRunner().invoke(app, ["--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["costs"] == str(tmp_path / command.COSTS)
    exact = [row.accuracy for row in Costs.load(tmp_path / command.COSTS).rows if row.bits == 0]
    assert exact == pytest.approx(told["validation_accuracy"], abs=0.03)


CONFIG = TrainingConfig(epochs=1, batch=64)
