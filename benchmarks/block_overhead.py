"""What does it cost to run the blocks one by one, with a look at exit and budget after each?

    python -m benchmarks.block_overhead [--images 300] [--repeats 5]

One image at a time on one thread, the sides in turn: the whole network in one call, its blocks one
by one, and the edge's side with thresholds off (blocks, entropies, budget). Writes
``benchmarks/results/block_overhead.json``.
"""

import argparse
import time

import numpy as np
import torch

from benchmarks.result import write
from xpi_ray.bundle import Bundle
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.edge import EdgeSide
from xpi_ray.inference.pace import Pace
from xpi_ray.training.data import load


@torch.inference_mode()
def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = Bundle.load()
    network = bundle.network.prepare()
    blocks = network.num_blocks
    plan = bundle.manifest.static_plan.model_copy(
        update={"partition": blocks, "thresholds": (0.0,) * blocks}
    )
    pace = Pace(bundle.manifest.profiles["default"].block_ms)
    side = EdgeSide(network, bundle.ladder, bundle.digest, pace)
    images = load("cifar10").test.images[: options.images]

    def whole(image: torch.Tensor) -> None:
        network(image.unsqueeze(0))

    def one_by_one(image: torch.Tensor) -> None:
        state = network.start(image.unsqueeze(0))
        for block in range(1, blocks + 1):
            state = network.advance(state, block)

    def edge_side(image: torch.Tensor) -> None:
        side.run(image.numpy(), plan, Budget(60_000))

    sides = {"whole": whole, "one_by_one": one_by_one, "edge_side": edge_side}
    times_ms: dict[str, list[list[float]]] = {name: [] for name in sides}
    for repeat in range(options.repeats + 1):
        taken_ms: dict[str, list[float]] = {name: [] for name in sides}
        for image in images:
            for name, run in sides.items():
                started = time.perf_counter()
                run(image)
                taken_ms[name].append((time.perf_counter() - started) * 1000)
        for name in sides:
            if repeat:  # the first warms up
                times_ms[name].append(taken_ms[name])
    rows = []
    for repeat in range(options.repeats):
        base_ms = np.median(times_ms["whole"][repeat])
        for name in sides:
            p50_ms = np.median(times_ms[name][repeat])
            ratio = round(float(p50_ms / base_ms), 3)
            p50 = round(float(p50_ms), 4)
            rows.append({"side": name, "repeat": repeat, "p50_ms": p50, "ratio": ratio})
    settings = {"bundle": bundle.digest.hex(), "images": options.images, "threads": 1}
    print(write("block_overhead", settings, rows))


if __name__ == "__main__":
    main()
