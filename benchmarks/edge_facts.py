"""What edge and cloud of the testbed are like for a data set, measured with Xpi's full network.

    Rig ─► measure ─► EdgeFacts ─► loads of runs, arguments of deployments, the simulator

The edge's share of a core is set by what the network takes there, and before each run set anew
(benchmarks/gauge.py). The network runs whole at the edge, one request at a time and many at once,
and then in the cloud.
"""

import time
from statistics import fmean, median
from typing import Any, NamedTuple

from benchmarks.rig import EDGE_REPLICAS, ONE_WAY_MS, Rig
from benchmarks.systems import Edge, whole_at
from xpi_ray.inference.answer import STAGES

FULL_NETWORK_MS = 150.0
"""What the full network is to take at the edge: deadlines are 100 to 500 ms."""
FIRST_CORES = 0.1
TRIALS = 3  # times that the share is set by what was measured with the one before
ALONE, ALONE_S = 20, 0.5  # requests one by one
TRIED = 8  # likewise, to set the share
BURST = 30  # requests at once
IDLE_S = 5.0
OWN = [name for name in STAGES if name not in ("total_ms", "decode_image_ms")]


class EdgeFacts(NamedTuple):
    """An edge, and the cloud behind it, for one data set; times are wall time."""

    cores: float
    """The edge's share of a processor, for what runs blocks."""
    full_network_ms: float
    """All blocks at the edge, median of single requests."""
    holds_rps: float
    """Requests a second with all blocks at the edge, when some always wait."""
    request_cpu_ms: float
    """Processor time of one such request in the processes that run blocks."""
    idle_cores: float
    """What these processes take when nothing is asked."""
    answer_ms: float
    """Median latency of single requests, as the client sees it."""
    slowdown: float
    """``full_network_ms`` relative to the bundle's profile."""
    work_ms: float
    """What a request keeps the edge busy beside its blocks."""
    router_ms: float
    """What the router takes for a request beside calls."""
    http_ms: float
    """What a request takes from the client to the router and back."""
    cloud_slowdown: float
    """As ``slowdown``, in the cloud."""
    hop_ms: float
    """A call to the cloud beside its work and the link."""
    gauge_ms: float
    """What the full network took by itself in the edge's share, when all this was measured."""

    def cores_now(self, gauge_ms: float) -> float:
        """The share of a core that makes the edge as weak as it was.

        Args:
            gauge_ms: What the full network takes by itself now, with the share as it was.
        """
        return round(min(self.cores * gauge_ms / self.gauge_ms, 1.0), 4)

    def as_told(self) -> Edge:
        """What a deployment is told of it."""
        return Edge(self.slowdown, round(2 * ONE_WAY_MS + self.hop_ms, 2), EDGE_REPLICAS)


def measure(rig: Rig, dataset: str) -> EdgeFacts:
    """Measure; what was deployed before is not there after."""
    at_edge, in_cloud = whole_at("edge", dataset), whole_at("cloud", dataset)
    block_ms = sum(at_edge.load().manifest.profiles["default"].block_ms)
    cores = FIRST_CORES
    rig.deploy(at_edge, Edge(replicas=EDGE_REPLICAS), cores)
    time.sleep(IDLE_S)  # what starting left to do
    for _ in range(TRIALS):
        tried = rig.ask(dataset, [number * ALONE_S for number in range(TRIED)])
        cores = round(min(cores * _stage(tried, "edge_ms") / FULL_NETWORK_MS, 1.0), 4)
        rig.weaken(cores)
    gauge_ms = rig.gauge_ms(dataset, cores)
    used_ms = rig.used_ms
    time.sleep(IDLE_S)
    idle_cores = (rig.used_ms - used_ms) / (1000 * IDLE_S)
    alone = rig.ask(dataset, [number * ALONE_S for number in range(ALONE)])
    used_ms = rig.used_ms
    burst = rig.ask(dataset, [0.0] * BURST)
    used_ms = rig.used_ms - used_ms
    ends_s = sorted(each["done_s"] for each in burst)
    busy_ms = 1000 * (ends_s[-1] - ends_s[0]) / (BURST - 1)
    full_network_ms = _stage(alone, "edge_ms")
    rig.deploy(in_cloud, Edge(replicas=EDGE_REPLICAS), cores)
    crossing = rig.ask(dataset, [number * ALONE_S for number in range(ALONE)])
    found = {
        "cores": cores,
        "full_network_ms": full_network_ms,
        "holds_rps": 1000 / busy_ms,
        "request_cpu_ms": used_ms / BURST,
        "idle_cores": idle_cores,
        "answer_ms": median(_latency_ms(each) for each in alone),
        "slowdown": full_network_ms / block_ms,
        "work_ms": max(busy_ms - fmean(each["answer"]["stages"]["edge_ms"] for each in burst), 0.0),
        "router_ms": median(_router_ms(each) for each in alone),
        "http_ms": median(_latency_ms(each) - _told(each, "total_ms") for each in alone),
        "cloud_slowdown": _stage(crossing, "cloud_ms") / block_ms,
        "hop_ms": max(_stage(crossing, "link_ms") - 2 * ONE_WAY_MS, 0.0),
        "gauge_ms": gauge_ms,
    }
    return EdgeFacts(**{name: round(value, 4) for name, value in found.items()})


def _told(record: dict[str, Any], stage: str) -> float:
    return float(record["answer"]["stages"][stage])


def _stage(records: list[dict[str, Any]], name: str) -> float:
    """Median of a stage."""
    return median(_told(each, name) for each in records)


def _latency_ms(record: dict[str, Any]) -> float:
    return 1000 * float(record["done_s"] - record["due_s"])


def _router_ms(record: dict[str, Any]) -> float:
    return _told(record, "total_ms") - sum(_told(record, name) for name in OWN)
