"""One real cluster for the whole session: an edge node, a cloud node, every port on loopback."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from ray import serve

from deployments.args import CloudArgs, SiteArgs, site_app_name
from deployments.local_cluster import LocalCluster, Replica
from xpi_ray.bundle import Bundle
from xpi_ray.policies.base import Decision
from xpi_ray.policies.static import plan_book
from xpi_ray.testing import TraceReceiver

SITE = SiteArgs(edge_replicas=1, max_ongoing_requests=16, max_queued_requests=16)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def traces() -> Iterator[TraceReceiver]:
    """A real OTLP receiver that the cluster's replicas send their spans to."""
    with TraceReceiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{receiver.endpoint}/v1/traces")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield receiver


@pytest.fixture(scope="session")
def cluster(traces: TraceReceiver) -> Iterator[LocalCluster]:
    """The applications without a scheduler; tests push the plans that they need."""
    with LocalCluster(port=free_port()) as running:
        running.deploy(SITE, CloudArgs())
        yield running


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.url, timeout=30) as open_client:
        yield open_client


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Bundle.load()


class Plans:
    """Pushes plans to the site's routers, as the scheduler does."""

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._version = 0

    def push(self, partition: int, threshold: float = 0.0, level: int = 1) -> int:
        """Make every request go by this plan from now on; returns its version."""
        routers = serve.get_deployment_handle("Router", site_app_name(SITE.site))
        decision = Decision(partition, (threshold,) * self._num_blocks, level)
        decisions = {slo.name: decision for slo in SITE.slo_classes}
        self._version += 1
        book = plan_book(decisions, self._version, lifetime_s=600)
        held = routers.broadcast("set_plans", book).results(timeout_s=10)
        self._version = max(self._version, *held)
        if max(held) > book.version:  # a scheduler was here before
            return self.push(partition, threshold, level)
        return self._version


@pytest.fixture(scope="session")
def plans(cluster: LocalCluster, bundle: Bundle) -> Plans:
    return Plans(bundle.network.num_blocks)


def replicas_of(cluster: LocalCluster, deployment: str) -> list[Replica]:
    return [replica for replica in cluster.replicas() if replica.deployment == deployment]


@pytest.fixture
def kill(cluster: LocalCluster) -> Callable[[str], int]:
    """Kills the only replica of a deployment at once; returns the process that was."""

    def kill_replica(deployment: str) -> int:
        (replica,) = replicas_of(cluster, deployment)
        os.kill(replica.pid, signal.SIGKILL)
        return replica.pid

    return kill_replica


@pytest.fixture
def revived(cluster: LocalCluster) -> Callable[[str, int], None]:
    """Waits until Serve has replaced a killed replica."""

    def wait(deployment: str, killed_pid: int, timeout_s: float = 60) -> None:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            pids = [replica.pid for replica in replicas_of(cluster, deployment)]
            if pids and killed_pid not in pids:
                return
            time.sleep(0.2)
        raise AssertionError(f"{deployment} did not come back within {timeout_s} s")

    return wait
