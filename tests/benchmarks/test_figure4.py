import numpy as np
import pytest

from benchmarks import figure4
from benchmarks.campaign import Asking, read
from benchmarks.systems import peer
from xpi_ray.link.traces import Trace


@pytest.fixture(scope="module")
def ran(tmp_path_factory, write_run, make_record_line):
    """Two runs of one system: three answers and a miss, then four answers by the cloud."""
    first = [make_record_line(3.0 + number) for number in range(3)]
    first.append(make_record_line(7.0, latency_ms=None))
    second = [make_record_line(3.0 + n, latency_ms=90.0, tier="cloud", exit=12) for n in range(4)]
    link = Trace("t", 1.0, np.array([2e6] * 3 + [2e5] * 3 + [2e6] * 4))
    found = []
    for seed, lines in enumerate((first, second)):
        run = read(write_run(tmp_path_factory.mktemp("run"), lines, seed=seed))
        link_bps = figure4.rates(run.counted, link, 0.0)
        asking = Asking("t", seed, 0.5)
        found.append(figure4.Ran(peer("xpi", "cifar10"), asking, run, link_bps))
    return found


def test_a_latency_curve_ends_at_what_was_answered(ran):
    """Seven of eight; it never falls."""
    rows = list(figure4.latency(ran))
    assert rows[-1]["share"] == 0.875
    assert rows[-1]["latency_ms"] == pytest.approx(90.0)
    shares = [row["share"] for row in rows]
    times = [row["latency_ms"] for row in rows]
    assert shares == sorted(shares)
    assert times == sorted(times)


def test_exits_are_shares_of_all_requests(ran):
    """Those without an answer are exit 0, which ran nowhere."""
    rows = {(row["exit"], row["tier"]): row["share"] for row in figure4.exits(ran)}
    assert rows == {(0, "none"): 0.125, (3, "edge"): 0.375, (12, "cloud"): 0.5}


def test_satisfaction_is_told_by_the_links_rate(ran):
    """By the mean over each request's own time: 0.2 and 2 Mbit/s here."""
    rows = list(figure4.bandwidth(ran))
    assert [row["from_bps"] for row in rows] == [1e5, 1e6]
    assert [row["mean_bps"] for row in rows] == [200_000, 2_000_000]
    assert sum(row["requests"] for row in rows) == 8
    assert rows[1]["deadline_satisfaction"] < rows[0]["deadline_satisfaction"] == 1.0
