"""What does serving through this project cost against bare Ray Serve, and what does it save?

    python -m benchmarks.parity [--seconds 4] [--repeats 5]

The same trained network, the same flags, the same client, sides in turn within each repeat:

  xpi_all_edge     the router runs every block, thresholds off
  bare_serve       one replica runs the whole network
  xpi_early_exit   as the first, with the thresholds that keep validation accuracy in 0.5 points
  xpi_edge_hop     as the first, with the blocks in an edge executor behind one handle hop
  bare_serve_hop   bare Serve with the network behind one handle hop

Writes ``benchmarks/results/parity.json``.
"""

import argparse
import asyncio
import json

import numpy as np
from ray import serve
from rich.progress import Progress

from benchmarks.bare import bare, bare_hop
from benchmarks.load import closed_loop, post
from benchmarks.result import write
from deployments import app
from deployments.args import CLOUD_APP, CloudArgs, SiteArgs, site_app_name
from deployments.local_cluster import LocalCluster
from xpi_ray.bundle import Bundle
from xpi_ray.training.data import load

PORT = 8123
CONCURRENCIES = (1, 8, 32)
IMAGES = 500
WARM_UP_S = 2.0


def requests(path: str) -> list[bytes]:
    """Real test images as OIP requests with one binary tensor."""
    header = {
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": [1, 3, 32, 32],
                "parameters": {"binary_data_size": 3 * 32 * 32},
            }
        ],
        "outputs": [{"name": "logits"}, {"name": "label"}],
        "parameters": {"xpi_deadline_ms": 10_000},
    }
    text = json.dumps(header).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    images = load("cifar10").test.images[:IMAGES].numpy()
    return [post(path, text + image.tobytes(), headers) for image in images]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    bundle = Bundle.load()
    blocks = bundle.network.num_blocks
    infer = f"/v2/models/{bundle.manifest.name}/infer"
    sides = {
        "xpi_all_edge": requests(infer),
        "bare_serve": requests("/bare"),
        "xpi_early_exit": requests(f"/early{infer}"),
        "xpi_edge_hop": requests(f"/replica{infer}"),
        "bare_serve_hop": requests("/hop"),
    }
    with LocalCluster(port=PORT) as cluster:
        cluster.add_edge_node("early")
        cluster.add_edge_node("replica")
        serve.run(app.cloud(CloudArgs()), name=CLOUD_APP, route_prefix=None)
        for args, prefix in (
            (SiteArgs(partition=blocks, early_exit=False), "/"),
            (SiteArgs(site="early", partition=blocks), "/early"),
            (
                SiteArgs(site="replica", partition=blocks, early_exit=False, edge_replicas=1),
                "/replica",
            ),
        ):
            serve.run(app.site(args), name=site_app_name(args.site), route_prefix=prefix)
        serve.run(bare(), name="bare", route_prefix="/bare")
        serve.run(bare_hop(), name="bare-hop", route_prefix="/hop")
        rows = asyncio.run(measure(sides, options.seconds, options.repeats))
    settings = {
        "bundle": bundle.digest.hex(),
        "seconds": options.seconds,
        "repeats": options.repeats,
        "images": IMAGES,
        "tolerance": bundle.manifest.calibrations[0].tolerance,
        "proxy": "haproxy",
        "threads_per_replica": 1,
    }
    print(write("parity", settings, rows))


async def measure(
    sides: dict[str, list[bytes]], seconds: float, repeats: int
) -> list[dict[str, object]]:
    """Every side in turn, at every concurrency, ``repeats`` times."""
    rows: list[dict[str, object]] = []
    for bodies in sides.values():  # failures do not count yet: the proxy may still reload
        await closed_loop(PORT, bodies, 4, WARM_UP_S)
    with Progress() as progress:
        task = progress.add_task("parity", total=repeats * len(CONCURRENCIES) * len(sides))
        for repeat in range(repeats):
            for concurrency in CONCURRENCIES:
                for side, bodies in sides.items():
                    load_ = await closed_loop(PORT, bodies, concurrency, seconds)
                    if load_.failures:
                        raise RuntimeError(f"{side}: {load_.failures} requests failed")
                    p50, p95 = np.percentile(load_.latencies_ms, [50, 95])
                    rows.append(
                        {
                            "side": side,
                            "concurrency": concurrency,
                            "repeat": repeat,
                            "p50_ms": round(float(p50), 3),
                            "p95_ms": round(float(p95), 3),
                            "requests_per_s": round(load_.requests_per_s, 1),
                        }
                    )
                    progress.advance(task)
    return rows


if __name__ == "__main__":
    main()
