"""How accurate is each exit on the test split, and what does it cost to get there?

    python -m benchmarks.exits [--bundle FOLDER] [--training NAME]

Writes ``benchmarks/results/exits_<dataset>.json``, or with a training's name behind it; the data
set is the one that the bundle is named after: cifar10, cifar100, tiny_imagenet or mnist. The only
use of the test split besides other benchmarks: nothing is chosen on it.
"""

import argparse
import math

import numpy as np
import torch
from rich.progress import track

from benchmarks.result import write
from xpi_ray.bundle import Bundle
from xpi_ray.training.data import load

CHUNK = 250


@torch.inference_mode()
def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or name; the default one if left out")
    parser.add_argument("--training", help="name of another training than the packaged one")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    network = bundle.network.prepare()
    dataset = bundle.manifest.name
    test = load(dataset).test
    hits = np.zeros(network.num_blocks)
    for start in track(range(0, len(test.labels), CHUNK), "test images"):
        state = network.start(test.images[start : start + CHUNK])
        for block in range(1, network.num_blocks + 1):
            state = network.advance(state, block)
            right = state.logits.argmax(1) == test.labels[start : start + CHUNK]
            hits[block - 1] += int(right.sum())
    rows = []
    for block in range(1, network.num_blocks + 1):
        row: dict[str, object] = {
            "exit": block,
            "accuracy": round(hits[block - 1] / len(test.labels), 4),
            "cumulative_macs": bundle.manifest.macs[block - 1],
            "carry_elements": math.prod(network.carry_shape(block)),
        }
        if block == network.num_blocks:
            row["carry_elements"] = 0  # nothing is sent after the last block
        rows.append(row)
    settings = {"bundle": bundle.digest.hex(), "images": len(test.labels)}
    name = "_".join(filter(None, ("exits", dataset, arguments.training)))
    print(write(name, settings, rows))


if __name__ == "__main__":
    main()
