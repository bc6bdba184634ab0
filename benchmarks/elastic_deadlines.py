"""Is planning exits better than thresholds where the time that is left is known?

    python -m benchmarks.elastic_deadlines [--images 10000] [--spread 0.1]

    test images ─► exits that run: planned for the deadline, thresholds, all ─► accuracy at it

All blocks are at the edge, as where a site has no cloud. Deadlines are shares of what the whole
network takes. How quick the edge is just then is known but for a spread, which plans go by.

Writes ``benchmarks/results/elastic_deadlines.json``.
"""

import argparse
from statistics import NormalDist

import numpy as np
from rich.progress import Progress

from benchmarks.elastic_modes import execute, judge, unplanned
from benchmarks.result import Row, write
from xpi_ray.bundle import Bundle
from xpi_ray.elastic.stop_times import StopTimes
from xpi_ray.training.data import load

SHARES = (0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3)
PARTS = 100  # of the edge's speeds, as likely as each other


def main() -> None:
    """Judge and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="of the test split, at most")
    parser.add_argument(
        "--spread", type=float, default=0.1, help="standard deviation of the logarithm of times"
    )
    options = parser.parse_args()
    bundle = Bundle.load()
    facts = bundle.elastic
    assert facts is not None  # the default bundle has them
    block_ms = bundle.manifest.profile_of("default").block_ms
    costs, whole_ms = facts.costs(block_ms), float(sum(block_ms))
    images, labels = (part[: options.images] for part in load("cifar10").test[:2])
    network = bundle.network.prepare()
    modes = unplanned(bundle, network, images, labels)
    rows: list[Row] = []
    with Progress() as progress:
        for share in progress.track(SHARES, description="deadlines"):
            stops = at_deadline(share * whole_ms, options.spread)
            each = progress.track(images.split(1), description=f"{share:g} of the whole")
            modes["planned"] = execute(network, each, labels, facts, costs, stops)
            rows += [{"deadline": share, **row} for row in judge(modes, costs, stops)]
    settings = {
        "bundle": bundle.digest.hex(),
        "images": len(labels),
        "whole_ms": round(whole_ms, 3),
        "spread": options.spread,
    }
    print(write("elastic_deadlines", settings, rows))


def at_deadline(deadline_ms: float, spread: float) -> StopTimes:
    """A deadline in times of the profile, on an edge that is slower or quicker by a spread.

    Args:
        deadline_ms: Since the request began.
        spread: Standard deviation of the logarithm of what the edge takes, relative to the profile.
    """
    slower = np.exp(spread * np.array(NormalDist().quantiles(PARTS)))
    return StopTimes.recorded(deadline_ms / slower)


if __name__ == "__main__":
    main()
