import json
import zipfile

import numpy as np
import pytest

from benchmarks import workload
from benchmarks.load_generator import read_images, read_requests
from rl.task import UPLINK_SHARE
from xpi_ray.errors import DataError
from xpi_ray.link.traces import Trace

SOURCES = workload.Sources(
    {"steady": Trace("steady", 1.0, np.full(100, 1e6))},
    {"even": np.ones(600), "growing": np.arange(600.0)},
)


def draw(seed=0, rate_rps=20.0, trace="steady"):
    """A minute of requests."""
    return workload.make(SOURCES, "cifar10", trace, seed, rate_rps, 10.0, 50.0)


def test_a_workload_is_the_same_whenever_it_is_drawn(cifar10):
    """Another seed or rate gives other requests; seeds take recordings in turn."""
    assert draw() == draw()
    assert draw(seed=1).asked != draw().asked
    assert draw(rate_rps=21.0).start_s != draw().start_s
    assert [draw(seed=seed).arrivals for seed in (0, 1, 2)] == ["even", "growing", "even"]


def test_requests_are_as_asked_for(cifar10):
    """Rising times at the mean rate, deadlines within bounds, images of the pool as they are."""
    work = draw()
    dues_s = [each.due_s for each in work.asked]
    assert dues_s == sorted(dues_s)
    assert len(dues_s) == pytest.approx(20 * work.total_s, rel=0.15)
    assert all(100 <= each.deadline_ms <= 500 for each in work.asked)
    pool = set(workload.pool("cifar10").tolist())
    assert len(pool) == workload.POOL["cifar10"]
    for each in work.asked:
        assert each.image in pool
        assert each.label == cifar10.classes[cifar10.test.labels[each.image]]
    assert 0 <= work.start_s < 100


def test_the_load_generator_reads_what_is_written(cifar10, tmp_path, monkeypatch):
    """Requests to the last digit, and images without loss."""
    monkeypatch.setitem(workload.POOL, "cifar10", 5)
    workload.pool.cache_clear()
    try:
        work = draw(rate_rps=0.5)
        work.write(tmp_path / "asked")
        assert read_requests(tmp_path / "asked") == list(work.asked)
        archive = tmp_path / "folder" / "images.zip"
        workload.write_images("cifar10", archive)
        written = archive.stat().st_mtime_ns
        workload.write_images("cifar10", archive)
        assert archive.stat().st_mtime_ns == written
        numbers = {each.image for each in work.asked}
        assert set(read_images(archive, numbers)) == numbers
        assert len(zipfile.ZipFile(archive).namelist()) == 5
    finally:
        workload.pool.cache_clear()


def test_an_unknown_trace_is_told():
    """With those that there are."""
    with pytest.raises(DataError, match="no trace swift; there are steady"):
        draw(trace="swift")


def test_sources_are_the_files_of_a_folder(tmp_path):
    """Uplinks as they are, 5G's downlinks scaled, every recording by its name."""
    for name in ("uplink", "5g", "arrivals"):
        (tmp_path / name).mkdir()
    (tmp_path / "uplink" / "a.up").write_text("".join(f"{n}\n" for n in range(1, 100)))
    (tmp_path / "5g" / "5g_b").write_text("1\t50\n2\t50\n")
    (tmp_path / "arrivals" / "c.txt").write_text("3\n4\n")
    found = workload.sources(tmp_path)
    assert list(found.traces) == ["a.up", "5g_b"]
    assert found.traces["5g_b"].mean_bps(0, 1) == pytest.approx(50e6 * UPLINK_SHARE)
    assert json.dumps({name: each.tolist() for name, each in found.recordings.items()}) == (
        '{"c": [3.0, 4.0]}'
    )
    with pytest.raises(DataError, match="expected traces"):
        workload.sources(tmp_path / "uplink")
