import subprocess
import sys

import pytest

from benchmarks.gauge import Gauge
from benchmarks.hosts import TestbedError


def test_each_line_gets_a_time():
    """The program says when it is ready, and goes on until its input ends."""
    program = [sys.executable, "-m", "benchmarks.gauge", "cifar10"]
    done = subprocess.run(program, input="run\nrun\n", capture_output=True, text=True, check=True)
    ready, *times = done.stdout.splitlines()
    assert ready == "ready"
    assert len(times) == 2
    assert all(float(time_ms) > 0 for time_ms in times)


class Share:
    """Stands in for one, which needs root."""

    def __init__(self):
        self.added = []

    def add(self, pid):
        """Remember it."""
        self.added.append(pid)


def test_a_gauge_runs_in_the_share():
    """It is there once it is ready, and gone after."""
    share = Share()
    with Gauge("cifar10", share, 0) as gauge:
        assert len(share.added) == 1
        assert gauge.full_network_ms() > 0


def test_a_gauge_that_cannot_start_is_told():
    """Not waited for."""
    with pytest.raises(TestbedError, match="ended"), Gauge("nothing", Share(), 0):
        pass
