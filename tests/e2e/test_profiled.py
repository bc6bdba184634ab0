"""A running cluster's own machines are measured, and it goes on serving as before."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import ray

from deployments.profiling import profile_names
from xpi_ray.bundle import Bundle
from xpi_ray.profiles.measure import processor

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

# Tests in a shell's background inherit that Ctrl-C is ignored; the program under test must not.
SCRIPT = """
import signal
from xpi_ray.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
XPI = [sys.executable, "-c", SCRIPT, "profile", "--address", "auto"]


@pytest.fixture
def environment(cluster):
    """What the cluster says that a program needs to join it."""
    joining = dict(pair.split("=", 1) for pair in cluster.joining.split())
    return {**os.environ, **joining}


def jobs():
    """Drivers that the cluster has seen, and whether they are gone."""
    return {job["JobID"]: job["IsDead"] for job in ray._private.state.jobs()}


def machines():
    """What the profiles of the cluster's living nodes are called."""
    labels = [node["Labels"] for node in ray.nodes() if node["Alive"]]
    return {profile_names(each)[0] for each in labels if "xpi-tier" in each}


def gone(before):
    """Whether somebody came after ``before`` and, given some time, all who did are gone."""
    end = time.monotonic() + 60
    while not all(jobs()[job] for job in jobs().keys() - before.keys()) and time.monotonic() < end:
        time.sleep(0.2)
    newcomers = jobs().keys() - before.keys()
    return bool(newcomers) and all(jobs()[job] for job in newcomers)


def test_every_node_gets_a_profile_of_its_own(cluster, client, environment, tmp_path):
    """One for the cloud and one for the site, measured there; the bundle's own one stays."""
    before = jobs()
    pids = {replica.pid for replica in cluster.replicas()}
    command = [*XPI, "--output", tmp_path, "--repeats", "3", "--slowdown", "4", "--json"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stderr
    told, found = json.loads(ran.stdout), Bundle.load(tmp_path)
    assert set(told) == machines() >= {"cloud", "edge:site-1"}
    manifest = found.manifest
    assert set(manifest.profiles) == {"default", *machines()}
    assert manifest.profiles["default"] == Bundle.load().manifest.profiles["default"]
    for replica in cluster.replicas():
        chosen = manifest.profile_of(*profile_names(replica.labels))
        assert processor() in chosen.machine
        assert chosen.slowdown == (4 if replica.labels["xpi-tier"] == "edge" else 1)
        assert min(min(row) for row in chosen.batch_ms) > 0
    assert {replica.pid for replica in cluster.replicas()} == pids
    assert client.get("/v2/health/ready").status_code == 200
    assert gone(before)


def test_a_stopped_measurement_leaves_nothing_behind(cluster, environment, tmp_path):
    """After Ctrl-C no driver and no bundle is left, and the replicas are those that were."""
    before = jobs()
    pids = {replica.pid for replica in cluster.replicas()}
    command = [*XPI, "--output", tmp_path / "new", "--repeats", "100000"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as measuring:
        end = time.monotonic() + 200
        while not jobs().keys() - before.keys() and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(2)  # so that it may have begun on a node
        os.kill(measuring.pid, signal.SIGINT)
        assert measuring.wait(timeout=100) != 0
        assert "Traceback" not in measuring.stderr.read()
    assert not (tmp_path / "new").exists()
    assert gone(before)
    assert {replica.pid for replica in cluster.replicas()} == pids
