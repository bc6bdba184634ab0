"""What do static, rule-based and learned plans make of a link and a load that change in mid-run?

    python -m benchmarks.drift [--repeats 3]

A live local cluster whose edge acts ``--slowdown`` times weaker and whose link is held to a trace.
After ``--phase`` seconds the bandwidth drops tenfold and the load triples; after as many more both
are as before. The same requests (test images, deadlines of 100 to 500 ms) go to each side in turn:

- ``static``: the bundle's own plan;
- ``least_latency``: the rule;
- ``learned``: the bundle's policy, as trained;
- ``learned_on``: the same, which goes on learning from what it sees.

A window of ``WINDOW_S`` is bad if the share of its requests in time is more than ``NEAR`` below
that of the whole first phase. Recovery is the time from a change until the first window after a bad
one is good; 0 if none is bad, the phase's length if none is good again. Writes
``benchmarks/results/drift.json``, and second by second ``drift_seconds.json``.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from benchmarks.load import Reply, open_loop, post
from benchmarks.result import write
from deployments.args import CloudArgs, SchedulerArgs, SiteArgs
from deployments.local_cluster import LocalCluster
from xpi_ray.bundle import Bundle
from xpi_ray.simulation.arrivals import varying
from xpi_ray.training.data import load

PORT = 8137
SIDES = {
    "static": SchedulerArgs(policy="static"),
    "least_latency": SchedulerArgs(policy="least_latency"),
    "learned": SchedulerArgs(policy="learned"),
    "learned_on": SchedulerArgs(policy="learned", learn=True),
}
PHASES = ("before", "during", "after")
MBPS, DROP = 1.0, 10.0
RATE_RPS, RISE = 10.0, 3.0
ROUND_TRIP_MS = 10.0
DEADLINES_MS = (100.0, 500.0)
WINDOW_S, NEAR = 3.0, 0.1
WARM_UP_S = 5.0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--phase", type=float, default=30.0, help="seconds")
    parser.add_argument("--slowdown", type=float, default=12.0, help="of the edge")
    arguments = parser.parse_args()
    bundle = Bundle.load()
    rows: list[dict[str, object]] = []
    seconds: list[dict[str, object]] = []
    with Progress() as progress:
        bar = progress.add_task("drift", total=arguments.repeats * len(SIDES))
        for repeat in range(arguments.repeats):
            plan = _requests(arguments.phase, repeat)
            for side, scheduler in SIDES.items():
                replies = _run(scheduler, plan, arguments.phase, arguments.slowdown)
                in_time = _in_time(replies, plan)
                of = {"side": side, "repeat": repeat}
                rows += [of | row for row in _judge(replies, in_time, plan, arguments.phase)]
                seconds += [of | row for row in _by_second(in_time, plan, arguments.phase)]
                progress.advance(bar)
    settings = {
        "bundle": bundle.digest.hex(),
        **vars(arguments),
        "mbps": MBPS,
        "drop": DROP,
        "rate_rps": RATE_RPS,
        "rise": RISE,
        "round_trip_ms": ROUND_TRIP_MS,
        "deadlines_ms": DEADLINES_MS,
    }
    print(write("drift", settings, rows))
    print(write("drift_seconds", settings, seconds))


class Plan:
    """Requests that every side gets.

    Args:
        times_s: Rising.
        images: Index of each request's test image.
        deadlines_ms: Of each.
    """

    def __init__(
        self,
        times_s: NDArray[np.float64],
        images: NDArray[np.int64],
        deadlines_ms: NDArray[np.float64],
    ) -> None:
        self.times_s, self.deadlines_ms = times_s, deadlines_ms
        split, names = load("cifar10").test, Bundle.load().manifest.labels
        self.labels = [names[label] for label in split.labels[images].tolist()]
        self.bodies = [
            post(f"/v1/classify?deadline_ms={deadline:.1f}", png(split.images[index].numpy()), {})
            for index, deadline in zip(images, deadlines_ms, strict=True)
        ]


def _requests(phase_s: float, seed: int) -> Plan:
    rng = np.random.default_rng(seed)

    def rate(times_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        phase = np.floor((times_ms / 1000 - WARM_UP_S) / phase_s)
        return np.where(phase == 1, RISE * RATE_RPS, RATE_RPS)

    times_ms = varying(rate, RISE * RATE_RPS, WARM_UP_S + 3 * phase_s, rng)
    count = len(times_ms)
    return Plan(
        times_ms / 1000,
        rng.integers(len(load("cifar10").test.labels), size=count),
        rng.uniform(*DEADLINES_MS, count),
    )


def _run(scheduler: SchedulerArgs, plan: Plan, phase_s: float, slowdown: float) -> list[Reply]:
    """One side on a cluster of its own."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "drift"
        seconds = int(WARM_UP_S + 3 * phase_s)
        phases = [(second - WARM_UP_S) // phase_s for second in range(seconds)]
        rates = [MBPS / DROP if phase == 1 else MBPS for phase in phases]
        trace.write_text("".join(f"{n}\t{rate}\n" for n, rate in enumerate(rates, 1)))
        site = SiteArgs(
            edge_slowdown=slowdown, link_trace=str(trace), link_round_trip_ms=ROUND_TRIP_MS
        )
        changes = {"edge_slowdown": slowdown, "round_trip_ms": ROUND_TRIP_MS}
        with LocalCluster(port=PORT) as cluster:
            cluster.deploy(site, CloudArgs(), scheduler.model_copy(update=changes))
            return asyncio.run(open_loop(PORT, plan.bodies, plan.times_s.tolist()))


def _in_time(replies: list[Reply], plan: Plan) -> NDArray[np.bool_]:
    return np.array(
        [
            reply.status == 200 and reply.latency_ms <= deadline
            for reply, deadline in zip(replies, plan.deadlines_ms, strict=True)
        ]
    )


def _judge(
    replies: list[Reply], in_time: NDArray[np.bool_], plan: Plan, phase_s: float
) -> Iterator[dict[str, object]]:
    """Each phase's row."""
    right = np.array(
        [_right(reply, label) for reply, label in zip(replies, plan.labels, strict=True)]
    )
    times_s = plan.times_s - WARM_UP_S
    usual = in_time[(times_s >= 0) & (times_s < phase_s)].mean()
    for number, phase in enumerate(PHASES):
        begins_s = number * phase_s
        own = (times_s >= begins_s) & (times_s < begins_s + phase_s)
        row: dict[str, object] = {
            "phase": phase,
            "requests": int(own.sum()),
            "missed": round(float(1 - in_time[own].mean()), 4),
            "accuracy": round(float(right[own & in_time].mean()), 4),
        }
        if number:
            after_s = times_s[own] - begins_s
            row["recovery_s"] = recovery_s(after_s, in_time[own], float(usual), phase_s)
        yield row


def _by_second(
    in_time: NDArray[np.bool_], plan: Plan, phase_s: float
) -> Iterator[dict[str, object]]:
    """Requests and misses of each second since the warm-up, with its phase."""
    times_s = plan.times_s - WARM_UP_S
    for second in range(int(len(PHASES) * phase_s)):
        own = (times_s >= second) & (times_s < second + 1)
        yield {
            "second": second,
            "phase": PHASES[int(second / phase_s)],
            "requests": int(own.sum()),
            "missed": int((~in_time[own]).sum()),
        }


def recovery_s(
    times_s: NDArray[np.float64], in_time: NDArray[np.bool_], usual: float, phase_s: float
) -> float:
    """When things are as usual again.

    Args:
        times_s: Of requests since the change, rising, below ``phase_s``.
        in_time: Whether each was answered in time.
        usual: Share in time before.
        phase_s: Length of the phase.
    """
    bad = False
    for start in times_s[times_s <= phase_s - WINDOW_S]:
        window = (times_s >= start) & (times_s < start + WINDOW_S)
        if in_time[window].mean() < usual - NEAR:
            bad = True
        elif bad:
            return round(float(start), 2)
    return phase_s if bad else 0.0


def _right(reply: Reply, label: str) -> bool:
    return reply.status == 200 and json.loads(reply.body)["label"] == label


def png(image: NDArray[np.uint8]) -> bytes:
    """(3, H, W) as a file."""
    buffer = BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
