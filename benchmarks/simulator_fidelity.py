"""Does the simulator tell what the live cluster does?

    python -m benchmarks.simulator_fidelity [--requests 4000]

A live local cluster with a slowed edge and a link held to a constant rate answers test images by
the static plan; every other request calibrates the simulator, the rest judge it. From the first
ones come, moment by moment, how slow edge and cloud were, what a call took beside link and queue,
what the router took beside these, and what HTTP took beside the router: the machine's own ups and
downs, which no model knows. All else is simulated: queues, batches, link, exits, deadlines. Times,
images and deadlines are the live ones.

Writes ``benchmarks/results/simulator_fidelity.json``.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from benchmarks.drift import png
from benchmarks.load import Reply, open_loop, post
from benchmarks.policies import RESUMED, outcomes_of
from benchmarks.result import write
from deployments.args import CloudArgs, SiteArgs
from deployments.local_cluster import LocalCluster
from xpi_ray.bundle import Bundle
from xpi_ray.link.traces import Trace
from xpi_ray.policies.base import Decision
from xpi_ray.policies.plan import SLO_CLASSES
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.arrivals import bursts, poisson
from xpi_ray.simulation.cluster import Cluster, Setting, Site
from xpi_ray.training.data import load

PORT = 8149
WARM_UP = 100
STAGES = (
    "edge_wait_ms",
    "edge_ms",
    "encode_ms",
    "link_ms",
    "cloud_wait_ms",
    "decode_ms",
    "cloud_ms",
)

AT_EDGE = STAGES[: STAGES.index("link_ms")]

Array = NDArray[np.float64]


class Scenario(NamedTuple):
    """One live run."""

    partition: int
    slowdown: float
    rate_rps: float
    bursts: bool
    mbps: float
    round_trip_ms: float
    deadlines_ms: tuple[float, float]


SCENARIOS = {
    "split": Scenario(6, 8.0, 15.0, False, 4.0, 10.0, (20.0, 120.0)),
    "edge": Scenario(12, 8.0, 15.0, False, 4.0, 10.0, (10.0, 100.0)),
    "bursts": Scenario(6, 8.0, 15.0, True, 4.0, 10.0, (20.0, 120.0)),
    "busy": Scenario(4, 8.0, 30.0, False, 1.0, 10.0, (20.0, 120.0)),
}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=4_000, help="half of them judge")
    parser.add_argument("--scenarios", nargs="*", default=list(SCENARIOS), choices=list(SCENARIOS))
    arguments = parser.parse_args()
    bundle = Bundle.load()
    outcomes = outcomes_of(bundle)
    rows: list[dict[str, object]] = []
    with Progress() as progress:
        for number, name in enumerate(progress.track(arguments.scenarios, description="live")):
            scenario = SCENARIOS[name]
            rng = np.random.default_rng(number)
            draw = bursts if scenario.bursts else poisson
            seconds = arguments.requests / scenario.rate_rps
            times_s = draw(scenario.rate_rps, seconds, rng) / 1000
            images = rng.integers(RESUMED, size=len(times_s))
            deadlines_ms = rng.uniform(*scenario.deadlines_ms, len(times_s))
            replies = _live(scenario, times_s, images, deadlines_ms)
            asked = Asked(times_s, images, deadlines_ms)
            rows += [
                {"scenario": name, **row}
                for row in _compare(bundle, outcomes, scenario, asked, replies)
            ]
    settings = {
        "bundle": bundle.digest.hex(),
        "requests": arguments.requests,
        "scenarios": {name: SCENARIOS[name]._asdict() for name in arguments.scenarios},
    }
    print(write("simulator_fidelity", settings, rows))


class Asked(NamedTuple):
    """The requests."""

    times_s: Array
    images: NDArray[np.int64]
    deadlines_ms: Array


def _live(
    scenario: Scenario, times_s: Array, images: NDArray[np.int64], deadlines_ms: Array
) -> list[Reply]:
    test = load("cifar10").test
    bodies = [
        post(f"/v1/classify?deadline_ms={deadline:.3f}", png(test.images[index].numpy()), {})
        for index, deadline in zip(images, deadlines_ms, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "steady"
        trace.write_text("".join(f"{second}\t{scenario.mbps}\n" for second in (1, 2)))
        site = SiteArgs(
            partition=scenario.partition,
            edge_slowdown=scenario.slowdown,
            link_trace=str(trace),
            link_round_trip_ms=scenario.round_trip_ms,
        )
        with LocalCluster(port=PORT) as cluster:
            cluster.deploy(site, CloudArgs())
            asyncio.run(open_loop(PORT, bodies[:WARM_UP], [n / 10 for n in range(WARM_UP)]))
            return asyncio.run(open_loop(PORT, bodies, times_s.tolist()))


def _compare(
    bundle: Bundle, outcomes: Outcomes, scenario: Scenario, asked: Asked, replies: list[Reply]
) -> Iterator[dict[str, object]]:
    profile = bundle.manifest.profiles["default"]
    static = bundle.manifest.static_plan
    decision = Decision(scenario.partition, static.thresholds, static.level)
    measured = _Measured(replies, np.array(profile.block_ms), scenario)
    calibrating = np.arange(len(replies)) % 2 == 0
    sent_ms = np.array([1000 * reply.sent_s for reply in replies])
    near = _nearest(sent_ms, measured, calibrating)
    router_ms, http_ms = near("router_ms"), near("http_ms")
    site = Site(
        # The budget runs while the router reads the request, not while HTTP brings it.
        arrivals=np.maximum.accumulate(sent_ms + router_ms),
        samples=asked.images,
        deadlines_ms=np.maximum(asked.deadlines_ms - router_ms, 0.0),
        edge_factors=near("edge_factor"),
        cloud_factors=near("cloud_factor"),
        hops_ms=near("hop_ms"),
        trace=Trace("steady", 1.0, np.array([1e6 * scenario.mbps])),
        round_trip_ms=scenario.round_trip_ms,
        edge_slowdown=scenario.slowdown,
        work_ms=0.0,
    )
    setting = Setting(profile, outcomes, SLO_CLASSES, decision)
    cluster = Cluster(setting, [site])
    cluster.advance(np.inf)
    rows = cluster.requests
    answered = rows[:, at.EXIT] > 0
    simulated_ms = rows[:, at.TOTAL] + router_ms + http_ms
    in_time = answered & (simulated_ms <= asked.deadlines_ms)
    live_ms = np.array([reply.latency_ms for reply in replies])
    live_answered = np.array([reply.status == 200 for reply in replies])
    live_in_time = live_answered & (live_ms <= asked.deadlines_ms)
    judge = ~calibrating
    both = judge & answered, judge & live_answered
    for share in (50, 95):
        values = (
            np.percentile(simulated_ms[both[0]], share),
            np.percentile(live_ms[both[1]], share),
        )
        yield _row(f"p{share}_ms", *values)
    yield _row("deadline_satisfaction", in_time[judge].mean(), live_in_time[judge].mean())
    exits = rows[both[0], at.EXIT].mean(), measured.exit[both[1]].mean()
    yield _row("mean_exit", *exits)
    crossed = (rows[judge, at.BYTES] > 0).mean(), (measured.bytes[judge] > 0).mean()
    yield _row("crossed", *crossed)


def _row(metric: str, simulated: float, measured: float) -> dict[str, object]:
    return {
        "metric": metric,
        "simulated": round(float(simulated), 4),
        "measured": round(float(measured), 4),
    }


class _Measured:
    """What each live answer tells, NaN where it tells nothing."""

    def __init__(self, replies: list[Reply], block_ms: Array, scenario: Scenario) -> None:
        until_ms = np.concatenate([[0.0], np.cumsum(block_ms)])
        facts: list[dict[str, Any]] = [
            json.loads(reply.body) if reply.status == 200 else {} for reply in replies
        ]
        stage = {
            name: np.array([fact.get("stages", {}).get(name, np.nan) for fact in facts])
            for name in STAGES
        }
        self.exit = np.array([fact.get("exit", 0) for fact in facts])
        self.bytes = np.array([fact.get("frame_bytes", 0) for fact in facts])
        crossed = stage["cloud_ms"] > 0
        edge_exit = np.where(crossed, scenario.partition, np.minimum(self.exit, scenario.partition))
        with np.errstate(divide="ignore", invalid="ignore"):
            expected_ms = scenario.slowdown * until_ms[edge_exit]
            self.edge_factor = np.where(edge_exit > 0, stage["edge_ms"] / expected_ms, np.nan)
            cloud_ms = until_ms[self.exit] - until_ms[scenario.partition]
            self.cloud_factor = np.where(crossed, stage["cloud_ms"] / cloud_ms, np.nan)
        latency_ms = np.array([reply.latency_ms for reply in replies])
        total_ms = np.array([fact.get("stages", {}).get("total_ms", np.nan) for fact in facts])
        self.router_ms = np.maximum(total_ms - np.nansum(list(stage.values()), axis=0), 0.0)
        self.router_ms[(self.bytes > 0) & ~crossed] = np.nan  # waited for a cloud that was late
        self.http_ms = np.maximum(latency_ms - total_ms, 0.0)
        sent_ms = np.array([1000 * reply.sent_s for reply in replies])
        begins_ms = sent_ms + np.nansum([stage[name] for name in AT_EDGE], axis=0)
        sending_ms = 8 * self.bytes / scenario.mbps / 1000
        hop_ms = stage["link_ms"] - sending_ms - scenario.round_trip_ms
        hop_ms -= _behind_others_ms(begins_ms, sending_ms)
        self.hop_ms = np.where(crossed, np.maximum(hop_ms, 0.0), np.nan)


def _behind_others_ms(begins_ms: Array, sending_ms: Array) -> Array:
    """How long each frame waits for the link, which takes them as they come."""
    waits_ms = np.zeros(len(begins_ms))
    free_ms = 0.0
    for number in np.argsort(begins_ms):
        if sending_ms[number] > 0:
            waits_ms[number] = max(free_ms - begins_ms[number], 0.0)
            free_ms = max(free_ms, begins_ms[number]) + sending_ms[number]
    return waits_ms


def _nearest(
    sent_ms: Array, measured: _Measured, calibrating: NDArray[np.bool_]
) -> Callable[[str], Array]:
    """Looks a quantity up at the calibrating request next in time that tells of it."""

    def look_up(name: str) -> Array:
        values: Array = getattr(measured, name)
        known = calibrating & np.isfinite(values)
        if not known.any():
            return np.zeros(len(values)) if name == "hop_ms" else np.ones(len(values))
        times = sent_ms[known]
        right = np.clip(np.searchsorted(times, sent_ms), 1, len(times) - 1)
        closer = sent_ms - times[right - 1] < times[right] - sent_ms
        found: Array = values[known][np.where(closer, right - 1, right)]
        return found

    return look_up


if __name__ == "__main__":
    main()
