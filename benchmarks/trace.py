"""Where does the time of one request go, as its trace tells it and as its answer tells it?

    python -m benchmarks.trace [--partition 4] [IMAGE]

Serves one photo on a local cluster with tracing on, thresholds off, and prints the spans of its
trace beside the stages of its answer. Writes no file: one request is no statistic.
"""

import argparse
import os
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from deployments.args import CloudArgs, SiteArgs
from deployments.local_cluster import LocalCluster
from xpi_ray.testing import TraceReceiver

PORT = 8126
PHOTO = Path(__file__).parent.parent / "tests" / "data" / "cat.jpg"
WARM_UPS = 20
SPANS = 4
PARENT = "00f067aa0ba902b7"


def main() -> None:
    """Ask once and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--partition", type=int, default=4)
    options = parser.parse_args()
    site = SiteArgs(partition=options.partition, early_exit=False)
    with TraceReceiver() as receiver:
        os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{receiver.endpoint}/v1/traces"
        with LocalCluster(port=PORT) as cluster, httpx.Client(base_url=cluster.url) as client:
            cluster.deploy(site, CloudArgs())
            data = options.image.read_bytes()
            for turn in range(WARM_UPS + 1):
                trace_id = f"{turn + 1:032x}"
                headers = {"traceparent": f"00-{trace_id}-{PARENT}-01"}
                reply = client.post("/v1/classify?deadline_ms=5000", content=data, headers=headers)
            answer = reply.raise_for_status().json()
            spans = wait_for(receiver, trace_id)
    show(spans, answer)


def wait_for(receiver: TraceReceiver, trace_id: str, timeout_s: float = 20.0) -> list[dict]:
    """The spans of one trace, in order of their start."""
    end_s = time.monotonic() + timeout_s
    while True:
        spans = [span for span in receiver.spans if span["trace_id"] == trace_id]
        if len(spans) == SPANS or time.monotonic() > end_s:
            return sorted(spans, key=lambda span: span["start_ns"])
        time.sleep(0.2)


def show(spans: list[dict], answer: dict) -> None:
    """Print the spans and what the answer said of the same times."""
    stages = answer["stages"]
    told_ms = {
        "xpi.request": stages["total_ms"],
        "xpi.edge": stages["edge_ms"] + stages["encode_ms"],
        "xpi.link": sum(stages[f"{name}_ms"] for name in ("link", "cloud_wait", "decode", "cloud")),
        "xpi.cloud": sum(stages[f"{name}_ms"] for name in ("cloud_wait", "decode", "cloud")),
    }
    table = Table("span", "service", "start ms", "span ms", "answer ms", "difference", "attributes")
    for span in spans:
        taken_ms = (span["end_ns"] - span["start_ns"]) / 1e6
        start_ms = (span["start_ns"] - spans[0]["start_ns"]) / 1e6
        told = told_ms[span["name"]]
        attributes = ", ".join(
            f"{name.removeprefix('xpi.')}={value:.3g}"
            if isinstance(value, float)
            else f"{name.removeprefix('xpi.')}={value}"
            for name, value in span["attributes"].items()
        )
        times = [f"{value:.2f}" for value in (start_ms, taken_ms, told, taken_ms - told)]
        table.add_row(span["name"], span["service"], *times, attributes)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
