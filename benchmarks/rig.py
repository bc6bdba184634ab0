"""The testbed made ready for a comparison: a weak edge, a cloud, and one system at a time on them.

    Testbed, RemoteCluster ─► Rig ─ deploy(System) ─► run(Workload) ─► records, facts
                               └─ ask: requests that have all the time that they want

One cluster serves all systems in turn. The thread that runs the edge's blocks has a part of one
core, such that the full network takes as long there as it is to (benchmarks/edge_facts.py). All
else runs on the other cores, as quick as they are, and leaves that one's caches alone.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.gauge import Gauge
from benchmarks.hosts import Host, TestbedError
from benchmarks.load_generator import Asked
from benchmarks.remote_cluster import RemoteCluster, busiest_thread, executors
from benchmarks.share import Metronome
from benchmarks.systems import SITE, Edge, System
from benchmarks.testbed import Testbed
from benchmarks.workload import Workload, pool, splits, write_images

ONE_WAY_MS = 5.0
EDGE_REPLICAS = 1  # HTTP and image files are the router's, and must not be as slow as blocks
EDGE_CORE = 0  # that the edge's blocks run on, and nothing else if there is another
QUICK_BPS = 100e6  # the link's rate while no run is on
ENVIRONMENT = {
    "RAY_health_check_failure_threshold": "60",  # a slow link is no dead node
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.1",  # nobody asks between two systems
    # What Ray tells of itself would take a tenth of a slow link, and of a small share.
    "REPORTER_UPDATE_INTERVAL_MS": "3600000",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",
}
BEFORE_S = 1.5  # from telling the sender until the first request may be due
CUT_S = 5.0
ROOMY_MS = 60_000.0  # a deadline that nothing misses
RECORDS, REQUESTS = "records.jsonl", "requests.jsonl"


class Rig:
    """Use it as a context; on exit nothing of it is left.

    Args:
        folder: For archives of images.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._deployed: System | None = None
        self._gauges: dict[str, Gauge] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._all, self._quick = stack.enter_context(_elsewhere())
            stack.enter_context(Metronome(EDGE_CORE))
            self._testbed = stack.enter_context(Testbed((SITE,), one_way_ms=ONE_WAY_MS))
            cluster = RemoteCluster(self._testbed, 1.0, "thread", ENVIRONMENT)
            self._cluster = stack.enter_context(cluster)
            self._stack = stack.pop_all()
        self._edge, self._link = self._testbed.edges[SITE], self._testbed.links[SITE]
        self._share = self._cluster.shares[SITE]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def deploy(self, system: System, edge: Edge, cores: float) -> None:
        """Put a system in the place of the one before, unless it is the same.

        Args:
            system: Its bundle must be there.
            edge: What it is told.
            cores: Of the edge's processor, for the thread that runs blocks.

        Raises:
            TestbedError: It does not come up.
            BundleError: Its bundle is not there.
        """
        self.weaken(cores)
        if system == self._deployed:
            return
        self._put_on(self._all)  # starting is most of the work, and the edge has nothing to do
        if self._deployed is not None:
            self._cluster.clear()
            self._deployed = None
        config = self._testbed.folder / f"{system.name}.yaml"
        config.write_text(system.config(edge))
        self._cluster.deploy(config)
        self._put_on(self._quick)
        for pid in executors(self._edge, SITE):
            os.sched_setaffinity(busiest_thread(pid), {EDGE_CORE})
        self._deployed = system

    def _put_on(self, cores: set[int]) -> None:
        """Let every thread of the cluster run on these cores only, and what they start."""
        for host in (self._testbed.cloud, self._edge):
            for pid in host.pids():
                with contextlib.suppress(OSError):  # it has just ended
                    for thread in (Path("/proc") / str(pid) / "task").iterdir():
                        with contextlib.suppress(ProcessLookupError):
                            os.sched_setaffinity(int(thread.name), cores)

    def weaken(self, cores: float) -> None:
        """Give the thread that runs the edge's blocks this part of a core."""
        if cores != self._share.cores:
            self._share.resize(cores)

    def gauge_ms(self, dataset: str, cores: float) -> float:
        """What the full network of a data set takes now with this part of the edge's core."""
        self.weaken(cores)
        if dataset not in self._gauges:
            gauge = Gauge(dataset, self._share, EDGE_CORE)
            self._gauges[dataset] = self._stack.enter_context(gauge)
        return self._gauges[dataset].full_network_ms()

    @property
    def used_ms(self) -> float:
        """Processor time that what runs blocks has had, since ever."""
        return self._share.used_ms

    def run(self, work: Workload, folder: Path, cuts_s: Sequence[float] = ()) -> dict[str, Any]:
        """Let the deployed system answer a workload.

        Args:
            work: Requests and link.
            folder: Where records are written.
            cuts_s: When the cable is pulled for ``CUT_S``, seconds since the run began, rising.

        Returns:
            What was counted, and of what run.

        Raises:
            TestbedError: The sender failed, or what runs blocks was replaced on the way.
        """
        assert self._deployed is not None
        folder.mkdir(parents=True, exist_ok=True)
        work.write(folder / REQUESTS)
        pids = executors(self._edge, SITE)
        with self._sender(work.dataset, folder) as sender:
            begin_s = sender.begin()
            _until(begin_s)
            with self._link.replay(work.trace, start_s=work.start_s), self._cuts(begin_s, cuts_s):
                _until(begin_s + work.warm_up_s)
                first = self._counts()
                _until(begin_s + work.total_s)
                last = self._counts()
                said = sender.end()
        self._link.set_rate(QUICK_BPS)
        if executors(self._edge, SITE) != pids:
            raise TestbedError(f"what runs {self._deployed.name}'s blocks died and was replaced")
        used_ms, up_bytes, down_bytes = np.subtract(last, first).tolist()
        end_s = work.start_s + work.total_s
        return {
            "system": self._deployed.name,
            "dataset": work.dataset,
            "trace": work.trace.name,
            "seed": work.seed,
            "rate_rps": round(work.rate_rps, 4),
            "arrivals": work.arrivals,
            "start_s": round(work.start_s, 3),
            "warm_up_s": work.warm_up_s,
            "duration_s": work.duration_s,
            "trace_bps": round(work.trace.mean_bps(work.start_s + work.warm_up_s, end_s)),
            "edge_used_ms": round(used_ms, 3),
            "up_bytes": round(up_bytes),
            "down_bytes": round(down_bytes),
            "cuts_s": list(cuts_s),
            "sender": said,
        }

    def _counts(self) -> tuple[float, float, float]:
        """Processor time of blocks, ms, and bytes that crossed up and down, all since ever."""
        up, down = self._link.up, self._link.down
        return (
            self.used_ms,
            float(down.host.received_bytes(down.device)),
            float(up.host.received_bytes(up.device)),
        )

    def ask(self, dataset: str, times_s: Sequence[float]) -> list[dict[str, Any]]:
        """Ask the deployed system, with deadlines that nothing misses.

        Args:
            dataset: Of the images.
            times_s: When requests are due, rising.

        Returns:
            Records, see benchmarks/load_generator.py.

        Raises:
            TestbedError: One was not answered.
        """
        folder = self._testbed.folder / "measured"
        folder.mkdir(exist_ok=True)
        data, numbers = splits(dataset), pool(dataset).tolist()
        asked = [
            Asked(time_s, number, data.classes[data.test.labels[number]], ROOMY_MS)
            for time_s, number in zip(times_s, numbers, strict=False)
        ]
        (folder / REQUESTS).write_text("".join(json.dumps(list(each)) + "\n" for each in asked))
        with self._sender(dataset, folder) as sender:
            sender.begin()
            sender.end()
        records = [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]
        for each in records:
            if each["outcome"] != "answered":
                raise TestbedError(f"a request of {dataset} was not answered: {each}")
        return records

    @contextmanager
    def _sender(self, dataset: str, folder: Path) -> Iterator["_Sender"]:
        images = self._folder / f"images-{dataset}.zip"
        write_images(dataset, images)
        sender = _Sender(self._edge, folder / REQUESTS, images, folder / RECORDS)
        try:
            yield sender
        finally:
            sender.close()

    @contextmanager
    def _cuts(self, begin_s: float, cuts_s: Sequence[float]) -> Iterator[None]:
        """Pull the cable at its times, while the context lasts."""

        def pull() -> None:
            for cut_s in cuts_s:
                _until(begin_s + cut_s)
                self._link.cut(CUT_S)

        pulling = threading.Thread(target=pull)
        pulling.start()
        try:
            yield
        finally:
            pulling.join()


class _Sender:
    """The load generator as a program on the edge's host."""

    def __init__(self, edge: Host, requests: Path, images: Path, records: Path) -> None:
        self._process = edge.popen(
            *(sys.executable, "-m", "benchmarks.load_generator"),
            *map(str, (requests, images, records)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def begin(self) -> float:
        """Let it begin soon; returns when, by ``time.monotonic``, which all hosts share."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise TestbedError("the load generator did not start; what it said is above")
        begin_s = time.monotonic() + BEFORE_S
        self._process.stdin.write(f"{begin_s}\n")
        self._process.stdin.flush()
        return begin_s

    def end(self) -> dict[str, float]:
        """Wait until all requests came to something; returns how it did itself."""
        said, _ = self._process.communicate()
        if self._process.returncode:
            raise TestbedError("the load generator failed; what it said is above")
        found: dict[str, float] = json.loads(said)
        return found

    def close(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def _until(time_s: float) -> None:
    """Sleep until a moment of ``time.monotonic``."""
    time.sleep(max(time_s - time.monotonic(), 0.0))


@contextmanager
def _elsewhere() -> Iterator[tuple[set[int], set[int]]]:
    """Keep this process, and what it starts meanwhile, off the edge's core.

    Gives all cores that it had, and those that it is kept on.
    """
    allowed = os.sched_getaffinity(0)
    quick = allowed - {EDGE_CORE} or allowed
    os.sched_setaffinity(0, quick)
    try:
        yield allowed, quick
    finally:
        os.sched_setaffinity(0, allowed)
