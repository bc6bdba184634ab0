"""A Ray cluster on the testbed's hosts, started and deployed to as on machines of their own.

    Testbed ─► RemoteCluster ─► `ray start --head` in the cloud, `ray start` at each edge
                             ├► deploy(YAML) ─► `serve deploy` ─► the applications
                             └► clear ─► none, and the same cluster for the next

Environment and labels are those of cluster.yaml. Ray's and HAProxy's files lie in the testbed's
folder, since the hosts share the machine's disk.

An edge can be made weak by a share of the processors, and it must be said of what: ``executor``
limits only the processes that run blocks, so that numbers tell what a weaker processor does to
inference; ``thread`` limits of these only the thread that runs blocks, for shares so small that
Ray's other threads would use them up; ``node`` limits all that Ray runs at the edge, as a small
machine would.
"""

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self

from benchmarks.hosts import Host, TestbedError
from benchmarks.share import Share
from benchmarks.testbed import Testbed
from deployments.args import site_app_name
from deployments.flags import flags
from deployments.local_cluster import STORE_BYTES
from deployments.placement import CLOUD, as_option, edge_of

GCS_PORT = 6379
DASHBOARD_PORT = 8265
APPLICATIONS = "/api/serve/applications/"
REPLICA = "ray::ServeReplica:"  # how the titles of their processes begin
TOOLS = Path(sys.executable).parent  # `ray` and `serve` of this Python
READY_S = 300.0  # for all applications to run
LOOK_S = 0.5
HAPROXY = {  # files within the testbed's folder; Ray adds a folder for each node
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "state",
}
Limited = Literal["executor", "thread", "node"]


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
        self.shares = {
            site: Share(edge.name, edge_cores)
            for site, edge in testbed.edges.items()
            if edge_cores is not None
        }
        """Of the edges that are limited, by site."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for share in self.shares.values():
                stack.enter_context(share)
            for host in (self._testbed.cloud, *self._testbed.edges.values()):
                stack.callback(host.end, but=host.pids())
            head = ["--head", f"--port={GCS_PORT}", "--include-dashboard=true"]
            self._start(self._testbed.cloud, CLOUD, head)
            address = f"--address={self._testbed.cloud.address}:{GCS_PORT}"
            for site, edge in self._testbed.edges.items():
                whole = self.shares.get(site) if self.limited == "node" else None
                self._start(edge, edge_of(site), [address], whole)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
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
        while not (states := self._states()) or set(states.values()) != {"RUNNING"}:
            if "DEPLOY_FAILED" in states.values() or time.monotonic() > end_s:
                raise TestbedError(f"not all applications of {config} run:\n{self.status()}")
            time.sleep(LOOK_S)
        self.limit_executors()

    def clear(self) -> None:
        """Take all applications away and wait until nothing of them runs, for others to come.

        Raises:
            TestbedError: Something still runs after ``READY_S``.
        """
        self._ask("PUT", {"applications": []})
        end_s = time.monotonic() + READY_S
        hosts = (self._testbed.cloud, *self._testbed.edges.values())
        while self._states() or any(replicas(host) for host in hosts):
            if time.monotonic() > end_s:
                raise TestbedError(f"not all applications ended:\n{self.status()}")
            time.sleep(LOOK_S)

    def status(self) -> str:
        """What `serve status` says, YAML."""
        cloud = self._testbed.cloud
        return cloud.run(str(TOOLS / "serve"), "status", environment=self.environment)

    def _states(self) -> dict[str, str]:
        """Of every application."""
        applications = self._ask("GET")["applications"]
        return {name: app["status"] for name, app in applications.items()}

    def _ask(self, method: str, body: object = None) -> dict[str, Any]:
        """Ask the head's REST interface, as `serve` does, which takes seconds to start."""
        client = http.client.HTTPConnection("127.0.0.1", DASHBOARD_PORT)
        client.sock = self._testbed.cloud.socket()
        try:
            client.sock.connect(("127.0.0.1", DASHBOARD_PORT))
            client.request(method, APPLICATIONS, None if body is None else json.dumps(body))
            reply = client.getresponse()
            said = reply.read()
        finally:
            client.close()
        if reply.status != 200:
            raise TestbedError(f"{method} {APPLICATIONS} failed: {said.decode()[:500]}")
        answer: dict[str, Any] = json.loads(said) if said else {}
        return answer

    def limit_executors(self) -> None:
        """Put what runs blocks into its edge's share; again after a replica was replaced."""
        for site, share in self.shares.items():
            for pid in executors(self._testbed.edges[site], site):
                if self.limited == "executor":
                    share.add(pid)
                elif self.limited == "thread":
                    share.add_thread(busiest_thread(pid))


def executors(edge: Host, site: str) -> list[int]:
    """The processes that run a site's blocks: its EdgeExecutors, or without any its Routers."""
    titles = replicas(edge)
    for deployment in ("EdgeExecutor", "Router"):
        wanted = f"{REPLICA}{site_app_name(site)}:{deployment}"
        if found := [pid for pid, title in titles.items() if title.startswith(wanted)]:
            return found
    raise TestbedError(f"no process on {edge.name} runs blocks of {site_app_name(site)}")


def busiest_thread(pid: int) -> int:
    """The thread of a process that took most processor time so far.

    Of a replica that has just started it is the one that made the network ready: its event loop's,
    which runs the blocks.
    """
    taken = {}
    for folder in (Path("/proc") / str(pid) / "task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            taken[int(folder.name)] = int(fields[11]) + int(fields[12])  # user, system
    return max(taken, key=lambda thread: taken[thread])


def replicas(host: Host) -> dict[int, str]:
    """The processes of Serve's replicas on a host, with their titles."""
    titles = {pid: _title(pid) for pid in host.pids()}
    return {pid: title for pid, title in titles.items() if title.startswith(REPLICA)}


def _title(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text().replace("\0", " ")
    except OSError:  # it has just ended
        return ""
