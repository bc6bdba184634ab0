"""How long does a call from an edge replica to a cloud replica take, by its size and the link?

    python -m benchmarks.handle_calls [--calls 30]

    client ─HTTP─► Caller, at the edge ─ payload ─► Callee, in the cloud, which answers at once

On the testbed (benchmarks/testbed.py), over Ray's handles as the router calls the cloud, at
constant rates both ways and with delay. ``sending_ms`` is the payload's bits over the rate,
``to_that`` the median's ratio to it and the delay. Writes ``benchmarks/results/handle_calls.json``.
"""

import argparse
import http.client
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse

from benchmarks.hosts import Host
from benchmarks.remote_cluster import RemoteCluster
from benchmarks.result import Row, write
from benchmarks.testbed import Testbed
from deployments.placement import CLOUD, edge_of

ROOT = Path(__file__).parent.parent
SITE = "site-1"
PORT = 8000
MBPS = (1.0, 8.0, 100.0)
ONE_WAY_MS = (0.0, 20.0)
PAYLOAD_BYTES = (100, 1_000, 10_000, 50_000)
WARM_UP_CALLS = 5
PATIENCE_S = 120.0
APPLICATION = {
    "proxy_location": "EveryNode",
    "http_options": {"host": "127.0.0.1", "port": PORT},
    "logging_config": {"log_level": "WARNING", "enable_access_log": False},
    "applications": [
        {"name": "calls", "route_prefix": "/", "import_path": "benchmarks.handle_calls:app"}
    ],
}


class Callee:
    """The cloud's end."""

    async def take(self, payload: bytes) -> int:
        """Answer with its size."""
        return len(payload)


class Caller:
    """The edge's end."""

    def __init__(self, callee: DeploymentHandle) -> None:
        self._callee = callee.options(_by_reference=False)  # as deployments/calls.py

    async def __call__(self, request: Request) -> JSONResponse:
        """Call so often, one after the other, with random bytes; answers with times in ms."""
        asked = request.query_params
        payload = random.randbytes(int(asked["payload_bytes"]))
        taken_ms = []
        for _ in range(int(asked["calls"])):
            begun_s = time.perf_counter()
            await self._callee.take.remote(payload)
            taken_ms.append(1000 * (time.perf_counter() - begun_s))
        return JSONResponse(taken_ms)


def app() -> Application:
    """Both, each on its own host."""
    callee, caller = (
        serve.deployment(kind, ray_actor_options={"num_cpus": 0.1, "label_selector": labels})
        for kind, labels in ((Callee, CLOUD), (Caller, edge_of(SITE)))
    )
    return caller.bind(callee.bind())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=30)
    options = parser.parse_args()
    rows = [row for one_way_ms in ONE_WAY_MS for row in _measure(one_way_ms, options.calls)]
    print(write("handle_calls", {"calls": options.calls}, rows))


def _measure(one_way_ms: float, calls: int) -> Iterator[Row]:
    """One delay, each rate and size."""
    environment = {"PYTHONPATH": str(ROOT)}  # for this file, which is not installed
    with (
        Testbed((SITE,), one_way_ms) as testbed,
        RemoteCluster(testbed, environment=environment) as cluster,
    ):
        config = testbed.folder / "calls.yaml"
        config.write_text(yaml.safe_dump(APPLICATION))
        cluster.deploy(config)
        for mbps in MBPS:
            testbed.links[SITE].set_rate(1e6 * mbps)
            _ask(testbed.edges[SITE], PAYLOAD_BYTES[0], WARM_UP_CALLS)
            for payload_bytes in PAYLOAD_BYTES:
                taken_ms = _ask(testbed.edges[SITE], payload_bytes, calls)
                p50_ms, p95_ms = np.percentile(taken_ms, [50, 95])
                sending_ms = payload_bytes * 8 / (1000 * mbps)
                yield {
                    "mbps": mbps,
                    "one_way_ms": one_way_ms,
                    "payload_bytes": payload_bytes,
                    "sending_ms": round(sending_ms, 3),
                    "p50_ms": round(float(p50_ms), 2),
                    "p95_ms": round(float(p95_ms), 2),
                    "to_that": round(float(p50_ms) / (sending_ms + 2 * one_way_ms), 3),
                }


def _ask(edge: Host, payload_bytes: int, calls: int) -> list[float]:
    """Times of calls, ms, asked for at the edge itself."""
    client = http.client.HTTPConnection("127.0.0.1", PORT)
    client.sock = edge.socket()
    client.sock.settimeout(PATIENCE_S)
    client.sock.connect(("127.0.0.1", PORT))
    client.request("GET", f"/?payload_bytes={payload_bytes}&calls={calls}")
    reply = client.getresponse()
    body = reply.read()
    client.close()
    if reply.status != 200:
        raise RuntimeError(f"the caller answered {reply.status}: {body[:200]!r}")
    taken_ms: list[float] = json.loads(body)
    return taken_ms


if __name__ == "__main__":
    main()
