import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from benchmarks.hosts import TestbedError as Refused
from benchmarks.remote_cluster import RemoteCluster, executors
from benchmarks.testbed import Testbed as Hosts

CLUSTER = Path(__file__).parents[2] / "cluster.yaml"


@pytest.fixture
def processes():
    """Starts stand-ins of Ray's processes; gives a host that has them."""
    started = []

    def start(*titles):
        for title in titles:
            started.append(subprocess.Popen(["bash", "-c", f"exec -a '{title}' sleep 60"]))
            while Path(f"/proc/{started[-1].pid}/comm").read_text() != "sleep\n":
                pass
        pids = [process.pid for process in started]
        return SimpleNamespace(name="edge-1", pids=lambda: [*pids, 2**30])

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_router_runs_blocks_unless_the_edge_has_executors(processes):
    """Those of the site alone; not its proxy, not another site's."""
    edge = processes(
        "ray::HAProxyManager",
        "ray::ServeReplica:xpi-site-2:EdgeExecutor",
        "ray::ServeReplica:xpi-site-1:Router",
    )
    assert executors(edge, "site-1") == [edge.pids()[2]]
    edge = processes("ray::ServeReplica:xpi-site-1:EdgeExecutor")
    assert executors(edge, "site-1") == [edge.pids()[3]]


def test_a_site_without_blocks_is_an_error(processes):
    """Else an edge would be taken for a weak one that is not."""
    with pytest.raises(Refused, match="xpi-site-3"):
        executors(processes("ray::ServeReplica:xpi-site-1:Router"), "site-3")


def test_nodes_start_with_the_environment_of_the_cluster_file():
    """What cluster.yaml sets on either machine is set here; what a caller sets comes first."""
    hosts = Hosts()
    hosts.folder = Path("/tmp/xpi-testbed-none")
    environment = RemoteCluster(hosts).environment
    config = yaml.safe_load(CLUSTER.read_text())
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        words = config[commands][-1].split()
        settings = dict(word.split("=") for word in words if word.startswith("RAY_"))
        assert settings.items() <= environment.items()
    patient = {"RAY_health_check_failure_threshold": "60"}
    assert patient.items() <= RemoteCluster(hosts, environment=patient).environment.items()
