"""What becomes of streams whose clients hang up at random moments, over HTTP?

    python -m benchmarks.elastic_live [--streams 1000] [--slowdown 12]

A live local cluster whose edge acts ``--slowdown`` times weaker. One client after the other sends a
test image to ``/v1/classify/stream`` and closes the connection at a time drawn evenly from what a
stream takes there that nobody stops (median of ``PATIENT`` such), and a quarter more. The edge's
own spans tell how far each request came and when it ended; the client knows what it holds and when
it hung up.

Of each stream: ``late_ms`` from hanging up until the edge's run was over (below 0: it was over
before), exits that ran and that came. Of the edge's process: memory, open files and threads after
``WARM_UPS`` streams and after all. Writes ``benchmarks/results/elastic_live.json``.
"""

import argparse
import asyncio
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress

from benchmarks.drift import png
from benchmarks.load import post
from benchmarks.result import Row, write
from deployments.args import CloudArgs, SiteArgs
from deployments.local_cluster import LocalCluster
from deployments.preempt_command import preempt_site
from xpi_ray.bundle import Bundle
from xpi_ray.testing import TraceReceiver
from xpi_ray.training.data import load

PORT = 8138
PATIENT = 50
WARM_UPS = 200
SPAN = "xpi.edge"
PATIENCE_S = 30.0


class Held(NamedTuple):
    """What a client has when it hangs up."""

    exit: int
    """The last that came, 0 if none did."""
    ended: bool
    """Whether the end came too."""
    closed_ns: int
    """Of ``time.time_ns``."""
    elapsed_ms: float
    """Of the last event, as the edge tells it; 0 if none came."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--slowdown", type=float, default=12.0, help="of the edge")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with TraceReceiver() as receiver:
        os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{receiver.endpoint}/v1/traces"
        os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "200"
        with LocalCluster(port=PORT) as cluster:
            site = SiteArgs(edge_slowdown=options.slowdown)
            cluster.deploy(site, CloudArgs())
            (pid,) = (r.pid for r in cluster.replicas() if r.deployment == "Router")
            rng = np.random.default_rng(options.seed)
            patient = asyncio.run(_all(PATIENT, np.inf, rng, receiver))
            whole_ms = float(np.median([held.elapsed_ms for held, _ in patient]))
            blocks = np.mean([row(*each)["blocks"] for each in patient])
            asyncio.run(_all(WARM_UPS, whole_ms, rng, receiver))
            before = process(pid)
            streams = asyncio.run(_all(options.streams, whole_ms, rng, receiver))
            after, running = process(pid), preempt_site(site.site)
    rows = [row(held, span) for held, span in streams]
    late_ms = np.array([each["late_ms"] for each in rows if each["reached"] and not each["ended"]])
    summary = {
        "streams": len(rows),
        "hung_up": len(late_ms),
        "late_p50_ms": round(float(np.quantile(late_ms, 0.5)), 3),
        "late_p99_ms": round(float(np.quantile(late_ms, 0.99)), 3),
        "late_max_ms": round(float(late_ms.max()), 3),
        "whole_ms": round(whole_ms, 3),
        "block_ms": round(whole_ms / float(blocks), 3),
        "with_an_exit": sum(each["ran"] > 0 for each in rows),
        "with_none_in_hand": sum(each["ran"] > 0 and each["held"] == 0 for each in rows),
        "still_running": running,
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": value for name, value in after.items()},
    }
    settings = {"bundle": Bundle.load().digest.hex(), **vars(options), **summary}
    print(write("elastic_live", settings, rows, options.seed))


async def _all(
    count: int, whole_ms: float, rng: np.random.Generator, receiver: TraceReceiver
) -> list[tuple[Held, dict[str, Any]]]:
    """Each stream's ends, the client's and the edge's."""
    split = load("cifar10").test
    ids = [rng.bytes(16).hex() for _ in range(count)]
    images = [png(split.images[n].numpy()) for n in rng.integers(len(split.labels), size=count)]
    stops_ms = rng.uniform(0, 1.25, count) * whole_ms
    with Progress() as progress:
        told = [
            await ask(PORT, trace_id, image, stop_ms)
            for trace_id, image, stop_ms in progress.track(
                zip(ids, images, stops_ms.tolist(), strict=True), count, description="streams"
            )
        ]
    spans: dict[str, dict[str, Any]] = {}
    give_up_s = time.monotonic() + PATIENCE_S
    while len(spans) < count and time.monotonic() < give_up_s:
        await asyncio.sleep(0.5)
        spans = {each["trace_id"]: each for each in list(receiver.spans) if each["name"] == SPAN}
        spans = {trace_id: spans[trace_id] for trace_id in ids if trace_id in spans}
    return [(held, spans.get(trace_id, {})) for trace_id, held in zip(ids, told, strict=True)]


async def ask(port: int, trace_id: str, image: bytes, stop_ms: float) -> Held:
    """One stream, until the end or until the client hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    events: list[dict[str, Any]] = []

    async def read() -> None:
        async for line in reader:
            if line.startswith(b"data: "):
                events.append(json.loads(line.removeprefix(b"data: ")))
                if "status" in events[-1]:
                    return

    try:
        writer.write(post("/v1/classify/stream", image, headers))
        with suppress(TimeoutError):
            await asyncio.wait_for(read(), None if stop_ms == np.inf else stop_ms / 1000)
        closed_ns = time.time_ns()
    finally:
        writer.transport.abort()
    exits = [each["exit"] for each in events if "exit" in each]
    elapsed_ms = max((each["elapsed_ms"] for each in events), default=0.0)
    return Held(max(exits, default=0), len(exits) < len(events), closed_ns, elapsed_ms)


def row(held: Held, span: dict[str, Any]) -> dict[str, Any]:
    """A stream as a result has it; without a span the request never reached the edge."""
    facts: Row = span.get("attributes", {})
    return {
        "reached": bool(span),
        "held": held.exit,
        "ended": held.ended,
        "ran": facts.get("xpi.exit", 0),
        "blocks": facts.get("xpi.blocks", 0),
        "late_ms": round((span["end_ns"] - held.closed_ns) / 1e6, 3) if span else 0.0,
    }


def process(pid: int) -> dict[str, int]:
    """What a process holds."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    facts = {line.partition(":")[0]: line.split()[1] for line in status if len(line.split()) > 1}
    return {
        "memory_kib": int(facts["VmRSS"]),
        "threads": int(facts["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


if __name__ == "__main__":
    main()
