"""How much of a block's importance do the channels hold that its branch reads?

    python -m benchmarks.skewness [--trainings NAME ...] [--run NAME=FOLDER ...]

Importance is by integrated gradients with one interval, as AgileNN computes it, through two
reference networks: ``training``, which the training itself went by, if it did, and ``fresh``, which
is fitted to the finished network's features in the same way for all. A training moves importance
for its own reference; the fresh one tells whether it moved at all.

Writes ``benchmarks/results/skewness.json``: means over those of the test images that the reference
answers correctly. The last block is not among the rows, as its branch reads all channels.
"""

import argparse
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.result import Rows
from benchmarks.runs import Run, add_arguments, data, fitted_reference, measure_all
from xpi_ray.explain.importance import disorder, misplaced, skewness
from xpi_ray.profiles.measure import Track
from xpi_ray.training.data import Split
from xpi_ray.training.losses import Manipulation, counted_shares
from xpi_ray.training.references import block_features

CHUNK = 250  # images at once


def measure(run: Run, test: Split, track: Track, steps: int) -> Rows:
    """Skewness and disorder of every block but the last, by every reference."""
    rows: Rows = []
    train = data(run.dataset).train
    for block in track(range(1, run.network.num_blocks), f"{run.training} {run.seed}"):
        references = {"fresh": fitted_reference(run.network, block, train, steps)}
        if run.objective is not None and str(block) in run.objective.references:
            references["training"] = run.objective.references[str(block)]
        for name, reference in references.items():
            shares = shares_of(run, block, reference, test)
            k = run.network.block(block).spec.branch_channels
            violations = disorder(shares, k) > 0
            rows.append(
                {
                    "block": block,
                    "reference": name,
                    "skewness": round(float(skewness(shares, k).mean()), 4),
                    "disorder_violation_rate": round(float(violations.float().mean()), 4),
                    "misplaced_share": round(float(misplaced(shares, k).mean()), 4),
                    "reference_accuracy": round(len(shares) / len(test.labels), 4),
                }
            )
    return rows


def shares_of(run: Run, block: int, reference: nn.Module, test: Split) -> Tensor:
    """Each channel's share of importance, of the images that the reference answers correctly."""
    parts = zip(test.images.split(CHUNK), test.labels.split(CHUNK), strict=True)
    return torch.cat(
        [
            counted_shares(
                Manipulation(), reference, block_features(run.network, images, block), labels
            ).detach()
            for images, labels in parts
        ]
    )


def main() -> None:
    """Measure what is not measured yet, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--steps", type=int, default=100, help="that a fresh reference is fitted")
    arguments = parser.parse_args()
    steps = arguments.steps
    measured = partial(measure, steps=steps)
    print(measure_all("skewness", arguments, {"reference_steps": steps}, measured))


if __name__ == "__main__":
    main()
