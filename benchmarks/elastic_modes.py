"""Exits planned for a stop that nobody knows, against thresholds, on the default network.

    python -m benchmarks.elastic_modes [--seconds 60] [--slowdown 4]

    test images ─► every exit's answer ─► exits that run: elastic mode, thresholds, all of them
    competing load ─► Preemptions ─► stops ──────────┴─► accuracy at the stop

Stops are uniform over the time of the whole network; then those of a job that a competing load
takes the processor from, recorded on this machine (benchmarks/preemption.py) with Poisson arrivals
of ``RATE_RPS``. The first half of a recording is what requests tell of their stops, the second
half judges; ``elastic, told nothing`` takes them for uniform. Thresholds are the bundle's own sets.
Times are those of the bundle's profile on an edge that acts ``--slowdown`` times weaker.

Writes ``benchmarks/results/elastic_modes.json``.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from benchmarks.elastic import ends_ms, guided, rights
from benchmarks.preemption import Floats, record
from benchmarks.result import Row, write
from xpi_ray.bundle import Bundle
from xpi_ray.elastic.facts import ElasticFacts
from xpi_ray.elastic.guide import Costs, Guide
from xpi_ray.elastic.measure import exit_logits
from xpi_ray.elastic.stop_times import StopTimes
from xpi_ray.exits.confidence import normalised_entropy
from xpi_ray.exits.rule import first_sure_exit
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.simulation.arrivals import poisson
from xpi_ray.training.data import load

RATE_RPS = 20.0
TOLD = 1_000  # stops that a request may tell
DRAWN = 20_000

Runs = Sequence[Sequence[int]]
"""Indices of the exits that run, ascending, of each image."""


class Ran(NamedTuple):
    """What a mode did."""

    runs: Runs
    correct: NDArray[np.bool_]
    """Whether each exit that ran is right, (n, N)."""


def main() -> None:
    """Judge and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="of the test split, at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each recording")
    parser.add_argument("--slowdown", type=float, default=4.0, help="of the edge")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    bundle = Bundle.load()
    facts = bundle.elastic
    assert facts is not None  # the default bundle has them
    slowed = bundle.manifest.profile_of("default").slowed(options.slowdown)
    costs = facts.costs(slowed.block_ms)
    whole = StopTimes.uniform(float(sum(slowed.block_ms)))
    split = load("cifar10").test
    images, labels = (part[: options.images] for part in split[:2])
    network = bundle.network.prepare()
    others = unplanned(bundle, network, images, labels)
    rows: list[Row] = []
    with Progress() as progress:

        def planned(stops: StopTimes) -> Ran:
            each = progress.track(images.split(1), description="images")
            return execute(network, each, labels, facts, costs, stops)

        unaware = planned(whole)
        rows += [
            {"stops": "uniform", "seed": 0, **row}
            for row in judge({"elastic": unaware, **others}, costs, whole)
        ]
        for seed in progress.track(options.seeds, description="recordings"):
            rng = np.random.default_rng(seed)
            found = record(poisson(RATE_RPS, options.seconds, rng)).stops_ms(DRAWN, rng)
            earlier, later = np.array_split(found, 2)
            told = StopTimes.recorded(rng.choice(earlier, TOLD))
            runs = {"elastic": planned(told), "elastic, told nothing": unaware, **others}
            rows += [
                {"stops": "pre-empted", "seed": seed, **row}
                for row in judge(runs, costs, StopTimes.recorded(later))
            ]
    settings = {
        "bundle": bundle.digest.hex(),
        "images": len(labels),
        "whole_ms": round(float(sum(slowed.block_ms)), 3),
        "rate_rps": RATE_RPS,
        **{name: getattr(options, name) for name in ("seconds", "slowdown")},
    }
    print(write("elastic_modes", settings, rows))


def unplanned(
    bundle: Bundle, network: ProgressiveNetwork, images: Tensor, labels: Tensor
) -> dict[str, Ran]:
    """Each set of thresholds, and every exit, by name.

    Args:
        bundle: That has the thresholds.
        network: Its own, prepared for serving.
        images: uint8 (n, 3, H, W).
        labels: Theirs, (n,).
    """
    logits = exit_logits(network, images)
    right = logits.argmax(-1) == labels.numpy()[:, None]
    entropy = normalised_entropy(logits)
    found = {
        f"thresholds, {100 * calibration.tolerance:g} points": Ran(
            _until_sure(entropy, np.array(calibration.thresholds)), right
        )
        for calibration in bundle.manifest.calibrations
    }
    return {**found, "every exit": Ran([range(right.shape[1])] * len(right), right)}


@torch.inference_mode()
def execute(
    network: ProgressiveNetwork,
    images: Iterable[Tensor],
    labels: Tensor,
    facts: ElasticFacts,
    costs: Costs,
    stops: StopTimes,
) -> Ran:
    """Run each image until nothing ahead is worth its time, planning after each exit.

    It is truly run, as where exits fuse a skipped one changes what later ones say.

    Args:
        network: Prepared for serving.
        images: Each uint8 (1, 3, H, W).
        labels: Theirs, (n,).
        facts: Of the network.
        costs: Times that count, whatever it takes here.
        stops: What the plans go by.
    """
    ran = [
        _execute(network, image, label, facts, Guide(costs, facts.predictor, stops), costs)
        for image, label in zip(images, labels.tolist(), strict=True)
    ]
    return Ran([runs for runs, _ in ran], np.array([right for _, right in ran]))


def _execute(
    network: ProgressiveNetwork,
    image: Tensor,
    label: int,
    facts: ElasticFacts,
    guide: Guide,
    costs: Costs,
) -> tuple[list[int], NDArray[np.bool_]]:
    """The exits of one image that ran, and which of all are right."""
    state, block = network.start(image), 0
    right = np.zeros(network.num_blocks, np.bool_)

    def confidence(exit_: int) -> float:
        nonlocal state, block
        for skipped in range(block + 1, exit_):
            state = network.skip_exit(state, skipped)
        state, block = network.advance(state, exit_), exit_
        logits = state.logits[0].numpy()
        right[exit_ - 1] = logits.argmax() == label
        return facts.confidence(exit_, logits)

    return guided(guide, costs, confidence), right


def judge(modes: dict[str, Ran], costs: Costs, stops: StopTimes) -> Iterator[Row]:
    """What each mode's answers are worth, if requests are stopped at these times."""
    for mode, (runs, correct) in modes.items():
        found = list(rights(runs, correct, costs, stops))
        first_ms = np.array([ends_ms(ran, costs)[0] for ran in runs])
        last_ms = np.array([ends_ms(ran, costs)[-1] for ran in runs])
        yield {
            "mode": mode,
            "accuracy": round(float(np.mean(found)), 5),
            "answered": round(float(stops.still_running(first_ms).mean()), 5),
            "exits": round(float(np.mean([len(ran) for ran in runs])), 3),
            "edge_ms": round(float(last_ms.mean()), 3),
        }


def _until_sure(entropy: Floats, thresholds: Floats) -> Runs:
    """All exits up to the first that is sure."""
    return [range(exit_) for exit_ in first_sure_exit(entropy, thresholds).tolist()]


if __name__ == "__main__":
    main()
