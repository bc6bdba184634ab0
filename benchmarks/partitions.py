"""Do answers stay right wherever the network is split, and how much crosses the link?

    python -m benchmarks.partitions [--images 500]

Serves test images on a local cluster with thresholds off, so that every block runs and every image
crosses the link at the partition point. Prints which node ran which deployment and writes
``benchmarks/results/partitions.json``.
"""

import argparse
from collections.abc import Sequence

import httpx
import numpy as np
from ray import serve
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.result import write
from deployments.args import CloudArgs, SiteArgs, site_app_name
from deployments.local_cluster import LocalCluster
from xpi_ray.bundle import Bundle
from xpi_ray.policies.base import Decision
from xpi_ray.policies.static import plan_book
from xpi_ray.training.data import load

PORT = 8125
LEVEL = 1
LIFETIME_S = 3_600.0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    count = parser.parse_args().images
    bundle = Bundle.load()
    blocks, labels = bundle.network.num_blocks, bundle.manifest.labels
    test = load("cifar10").test
    rows = []
    with LocalCluster(port=PORT) as cluster, httpx.Client(base_url=cluster.url) as client:
        args = SiteArgs(edge_replicas=1)
        cluster.deploy(args, CloudArgs())
        table = Table("deployment", "node", "process")
        for replica in cluster.replicas():
            tier = {name: value for name, value in replica.labels.items() if "xpi" in name}
            table.add_row(replica.deployment, str(tier), str(replica.pid))
        Console().print(table)
        routers = serve.get_deployment_handle("Router", site_app_name(args.site))
        names = [slo.name for slo in args.slo_classes]
        for version, partition in enumerate((0, 3, 6, 9, 12), start=1):
            decision = Decision(partition, (0.0,) * blocks, LEVEL)
            book = plan_book(dict.fromkeys(names, decision), version, LIFETIME_S)
            routers.broadcast("set_plans", book).results(timeout_s=5)
            rows.append(
                {"partition": partition, **_serve(client, test.images, test.labels, labels, count)}
            )
    settings = {"bundle": bundle.digest.hex(), "images": count, "level": LEVEL}
    print(write("partitions", settings, rows))


def _serve(
    client: httpx.Client, images: Tensor, labels: Tensor, names: Sequence[str], count: int
) -> dict[str, object]:
    right, sizes, tiers = 0, [], []
    for image, label in track(zip(images[:count], labels[:count], strict=True), total=count):
        request = {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "UINT8",
                    "shape": [1, 3, 32, 32],
                    "data": image.flatten().tolist(),
                }
            ],
            "outputs": [{"name": "label"}],
            "parameters": {"xpi_deadline_ms": 10_000},
        }
        answer = client.post("/v2/models/cifar10/infer", json=request).raise_for_status().json()
        right += answer["outputs"][0]["data"][0] == names[label]
        sizes.append(answer["parameters"]["xpi_frame_bytes"])
        tiers.append(answer["parameters"]["xpi_tier"])
    return {
        "images": count,
        "accuracy": right / count,
        "frame_bytes_mean": round(float(np.mean(sizes)), 1),
        "answered_by_cloud": tiers.count("cloud"),
    }


if __name__ == "__main__":
    main()
