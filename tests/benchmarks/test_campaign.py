import json

import numpy as np
import pytest

from benchmarks import campaign
from benchmarks.campaign import Asking, Campaign
from benchmarks.edge_facts import EdgeFacts
from benchmarks.systems import peer
from benchmarks.workload import Sources
from xpi_ray.link.traces import Trace

SOURCES = Sources({"t": Trace("t", 1.0, np.ones(9))}, {"even": np.ones(60)})
FACTS = EdgeFacts(0.1, 120.0, 8.0, 4.0, 0.01, 130.0, 40.0, 5.0, 1.0, 2.0, 1.2, 4.0, 118.0)
ASKING = Asking("t", 0, 0.5)


@pytest.fixture
def runs(tmp_path, write_run, make_record_line):
    """A campaign whose every run was made before: it has no testbed, and may need none."""
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "edge.json").write_text(json.dumps(FACTS._asdict()))
    lines = [make_record_line(float(due_s)) for due_s in range(12)]
    for system in ("xpi", "edge_only"):
        for seed in (0, 1):
            name = Asking("t", seed, 0.5).name
            write_run(tmp_path / "cifar10" / system / name, lines, system=system, seed=seed)
    with Campaign(tmp_path, drawn_from=SOURCES) as made:
        yield made


def test_a_run_that_is_there_is_read(runs):
    """Requests of the warm-up do not count, nor those after the end."""
    run = runs.run(peer("xpi", "cifar10"), ASKING)
    assert run.every.due_s.size == 12
    assert run.counted.due_s.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    row = run.row()
    assert row["requests"] == 8
    assert row["edge_cpu_ms"] == 5.0
    assert row["up_bytes"] == 100.0
    assert (row["system"], row["seed"], row["load"]) == ("xpi", 0, 0.5)


def test_systems_take_turns_in_who_comes_first(runs):
    """Every system has every workload once."""
    systems = [peer("xpi", "cifar10"), peer("edge_only", "cifar10")]
    groups = [[Asking("t", seed, 0.5)] for seed in (0, 1)]
    order = [(system.name, asking.seed) for system, asking, _ in runs.all(systems, groups)]
    assert order == [("xpi", 0), ("edge_only", 0), ("edge_only", 1), ("xpi", 1)]


def test_what_the_edge_is_like_is_measured_once(runs):
    """It is read from then on, and stands in the settings of results."""
    assert runs.edge("cifar10") == FACTS
    assert runs.settings(["cifar10"])["edge"] == {"cifar10": FACTS._asdict()}
    assert FACTS.as_told().slowdown == 40.0


def test_only_what_was_made_takes_part(capsys, monkeypatch, tmp_path):
    """What is missing is told, with where it should be."""
    monkeypatch.setattr("benchmarks.systems.BUNDLES", tmp_path / "nowhere")
    found = campaign.there([peer("xpi", "cifar10"), peer("deepcod", "cifar10")])
    assert [each.name for each in found] == ["xpi"]
    assert "left out: deepcod" in capsys.readouterr().err
