"""A Ray cluster on the testbed's hosts, started and deployed to as on machines of their own.

    Testbed ─► RemoteCluster ─► `ray start --head` in the cloud, `ray start` at each edge
                             └► deploy(YAML) ─► `serve deploy` ─► the applications

Environment and labels are those of cluster.yaml. Ray's and HAProxy's files lie in the testbed's
folder, since the hosts share the machine's disk.

An edge can be made weak by a share of the processors, and it must be said of what: ``executor``
limits only the processes that run blocks, so that numbers tell what a weaker processor does to
inference; ``node`` limits all that Ray runs at the edge, as a small machine would.
"""

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import yaml

from benchmarks.hosts import Host, TestbedError
from benchmarks.share import Share
from benchmarks.testbed import Testbed
from deployments.args import site_app_name
from deployments.flags import flags
from deployments.local_cluster import STORE_BYTES
from deployments.placement import CLOUD, as_option, edge_of

GCS_PORT = 6379
TOOLS = Path(sys.executable).parent  # `ray` and `serve` of this Python
READY_S = 120.0  # for all applications to run
LOOK_S = 1.0
HAPROXY = {  # files within the testbed's folder; Ray adds a folder for each node
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "state",
}
Limited = Literal["executor", "node"]


class RemoteCluster:
    """Use it as a context, within the testbed's; on exit all that runs on the hosts is ended.

    Args:
        testbed: Set up.
        edge_cores: Processors' time for each edge; None leaves them as strong as the machine.
        limited: What of an edge that holds for.
        environment: For Ray's processes, beside ``deployments/flags.py``'s or instead of it.
    """

    def __init__(
        self,
        testbed: Testbed,
        edge_cores: float | None = None,
        limited: Limited = "executor",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._testbed, self.limited = testbed, limited
        self.environment = {
            **flags("haproxy"),
            **{name: str(testbed.folder / file) for name, file in HAPROXY.items()},
            "RAY_AUTH_MODE": "disabled",  # no way leads into the hosts
            "RAY_USAGE_STATS_ENABLED": "0",
            **(environment or {}),
        }
        """Of Ray's processes, beside this process's own."""
        self._shares = {
            site: Share(edge.name, edge_cores)
            for site, edge in testbed.edges.items()
            if edge_cores is not None
        }
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for share in self._shares.values():
                stack.enter_context(share)
            for host in (self._testbed.cloud, *self._testbed.edges.values()):
                stack.callback(host.end, but=host.pids())
            head = ["--head", f"--port={GCS_PORT}", "--include-dashboard=true"]
            self._start(self._testbed.cloud, CLOUD, head)
            address = f"--address={self._testbed.cloud.address}:{GCS_PORT}"
            for site, edge in self._testbed.edges.items():
                whole = self._shares.get(site) if self.limited == "node" else None
                self._start(edge, edge_of(site), [address], whole)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(
        self, host: Host, labels: Mapping[str, str], words: list[str], share: Share | None = None
    ) -> None:
        """Start a node as a user does on a machine."""
        folder = self._testbed.folder / host.name
        folder.mkdir()
        process = host.popen(
            str(TOOLS / "ray"),
            "start",
            *words,
            f"--node-ip-address={host.address}",
            f"--labels={as_option(labels)}",
            f"--object-store-memory={STORE_BYTES}",  # memory is shared, and hardly used
            f"--temp-dir={folder}",
            environment=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if share:
            share.add(process.pid)
        said, _ = process.communicate()
        if process.returncode:
            raise TestbedError(f"`ray start` failed on {host.name}: {said.strip()}")

    def deploy(self, config: Path) -> None:
        """Deploy applications as a user does, and wait until all run.

        Args:
            config: YAML for `serve deploy`.

        Raises:
            TestbedError: An application failed, or did not run within ``READY_S``.
        """
        cloud = self._testbed.cloud
        cloud.run(str(TOOLS / "serve"), "deploy", str(config), environment=self.environment)
        end_s = time.monotonic() + READY_S
        while not (states := set(self._states())) <= {"RUNNING"} or not states:
            if "DEPLOY_FAILED" in states or time.monotonic() > end_s:
                raise TestbedError(f"not all applications of {config} run:\n{self.status()}")
            time.sleep(LOOK_S)
        self.limit_executors()

    def status(self) -> str:
        """What `serve status` says, YAML."""
        cloud = self._testbed.cloud
        return cloud.run(str(TOOLS / "serve"), "status", environment=self.environment)

    def _states(self) -> list[str]:
        """Of every application."""
        return [app["status"] for app in yaml.safe_load(self.status())["applications"].values()]

    def limit_executors(self) -> None:
        """Put what runs blocks into its edge's share; again after a replica was replaced."""
        if self.limited == "executor":
            for site, share in self._shares.items():
                for pid in executors(self._testbed.edges[site], site):
                    share.add(pid)


def executors(edge: Host, site: str) -> list[int]:
    """The processes that run a site's blocks: its EdgeExecutors, or without any its Routers."""
    titles = {pid: _title(pid) for pid in edge.pids()}
    for deployment in ("EdgeExecutor", "Router"):
        wanted = f"ray::ServeReplica:{site_app_name(site)}:{deployment}"
        if found := [pid for pid, title in titles.items() if title.startswith(wanted)]:
            return found
    raise TestbedError(f"no process on {edge.name} runs blocks of {site_app_name(site)}")


def _title(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text().replace("\0", " ")
    except OSError:  # it has just ended
        return ""
