import numpy as np
import pytest

from benchmarks import figure4_simulated as simulated
from benchmarks.campaign import read
from benchmarks.edge_facts import EdgeFacts
from benchmarks.load_generator import Asked
from benchmarks.systems import System, peer, whole_at
from xpi_ray.link.traces import Trace
from xpi_ray.simulation import columns as at

FACTS = EdgeFacts(
    cores=0.1,
    full_network_ms=120.0,
    holds_rps=8.0,
    request_cpu_ms=4.0,
    idle_cores=0.01,
    answer_ms=130.0,
    slowdown=30.0,
    work_ms=5.0,
    router_ms=1.0,
    http_ms=2.0,
    cloud_slowdown=1.2,
    hop_ms=4.0,
    gauge_ms=118.0,
)
LINK = Trace("t", 1.0, np.full(10, 8e6))


@pytest.fixture
def predict(monkeypatch, tmp_path, write_run, make_record_line):
    """Predicts ten seconds of a request each 250 ms, with held-out images for test images."""
    monkeypatch.setattr(simulated, "pool", lambda dataset: np.arange(1_000))
    monkeypatch.setattr(simulated, "outcomes_of", lambda bundle, *_: bundle.outcomes)
    asked = [Asked(number / 4, number, "cat", 400.0) for number in range(40)]
    lines = [make_record_line(each.due_s, latency_ms=80.0) for each in asked]
    run = read(write_run(tmp_path / "run", lines, start_s=3.0))

    def make(system: System, facts=FACTS):
        return run, simulated.Prediction(system, facts, tmp_path).of(run, asked, LINK)

    return make


def test_all_at_the_edge_takes_what_the_edge_takes(predict):
    """Every block of every request, and nothing crosses; the client waits for HTTP besides."""
    run, rows = predict(whole_at("edge", "cifar10"))
    found = simulated.simulated_facts(rows, FACTS)
    block_ms = sum(peer("xpi", "cifar10").load().manifest.profiles["default"].block_ms)
    assert found["mean_exit"] == 12
    assert found["crossed"] == 0
    expected_ms = FACTS.slowdown * block_ms + FACTS.work_ms + FACTS.router_ms + FACTS.http_ms
    assert found["p50_ms"] == pytest.approx(expected_ms, rel=0.1)
    assert len(rows) == run.every.due_s.size


def test_all_in_the_cloud_waits_for_the_link(predict):
    """Every frame crosses it, so no request is quicker than the delay there and back."""
    _, rows = predict(whole_at("cloud", "cifar10"))
    found = simulated.simulated_facts(rows, FACTS)
    assert found["crossed"] == 1
    assert rows[:, at.TOTAL].min() > 10.0


def test_a_prediction_stands_beside_what_was_measured(predict):
    """By one name each, without the warm-up; predicting once more gives the same."""
    run, rows = predict(peer("xpi", "cifar10"))
    row = simulated._beside(run, rows, FACTS)
    assert row == simulated._beside(run, predict(peer("xpi", "cifar10"))[1], FACTS)
    assert row["measured_satisfaction"] == 1.0
    assert row["measured_p50_ms"] == 80.0
    assert 0 < row["simulated_satisfaction"] <= 1


def test_runs_are_found_by_their_folders(write_run, make_record_line, tmp_path):
    """Those of peers that were ended; ablations are not predicted."""
    lines = [make_record_line(3.0)]
    for name in ("xpi", "without_xai"):
        write_run(tmp_path / "cifar10" / name / "t-seed0-load1", lines)
    (tmp_path / "cifar10" / "xpi" / "t-seed1-load1").mkdir()
    ((system, path),) = simulated.made(tmp_path)
    assert system == peer("xpi", "cifar10")
    assert path.name == "t-seed0-load1"
