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
from collections.abc import Iterator, Sequence

import numpy as np
from rich.progress import Progress

from benchmarks.elastic import Samples, ends_ms, planned, rights
from benchmarks.preemption import Floats, record
from benchmarks.result import Row, write
from xpi_ray.bundle import Bundle
from xpi_ray.elastic.confidence import confidence
from xpi_ray.elastic.guide import Costs
from xpi_ray.elastic.measure import exit_logits
from xpi_ray.elastic.predictor import Predictor
from xpi_ray.elastic.stop_times import StopTimes
from xpi_ray.exits.confidence import normalised_entropy
from xpi_ray.exits.rule import first_sure_exit
from xpi_ray.simulation.arrivals import poisson
from xpi_ray.training.data import load

RATE_RPS = 20.0
TOLD = 1_000  # stops that a request may tell
DRAWN = 20_000

Runs = Sequence[Sequence[int]]


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
    logits = exit_logits(bundle.network.prepare(), split.images[: options.images])
    right = logits.argmax(-1) == split.labels[: options.images].numpy()[:, None]
    samples = Samples(confidence(logits, facts.temperature), right)
    entropy = normalised_entropy(logits)
    by_threshold = {
        f"thresholds, {100 * calibration.tolerance:g} points": _until_sure(
            entropy, np.array(calibration.thresholds)
        )
        for calibration in bundle.manifest.calibrations
    }
    by_threshold["every exit"] = [range(right.shape[1])] * len(right)
    unaware = _planned(samples, costs, facts.predictor, whole)
    rows = [
        {"stops": "uniform", "seed": 0, **row}
        for row in judge({"elastic": unaware, **by_threshold}, samples, costs, whole)
    ]
    with Progress() as progress:
        for seed in progress.track(options.seeds, description="recordings"):
            rng = np.random.default_rng(seed)
            found = record(poisson(RATE_RPS, options.seconds, rng)).stops_ms(DRAWN, rng)
            earlier, later = np.array_split(found, 2)
            told = StopTimes.recorded(rng.choice(earlier, TOLD))
            aware = _planned(samples, costs, facts.predictor, told)
            runs = {"elastic": aware, "elastic, told nothing": unaware, **by_threshold}
            rows += [
                {"stops": "pre-empted", "seed": seed, **row}
                for row in judge(runs, samples, costs, StopTimes.recorded(later))
            ]
    settings = {
        "bundle": bundle.digest.hex(),
        "images": len(right),
        "whole_ms": round(float(sum(slowed.block_ms)), 3),
        "rate_rps": RATE_RPS,
        **{name: getattr(options, name) for name in ("seconds", "slowdown")},
    }
    print(write("elastic_modes", settings, rows))


def judge(
    modes: dict[str, Runs], samples: Samples, costs: Costs, stops: StopTimes
) -> Iterator[Row]:
    """What each mode's answers are worth, if requests are stopped at these times."""
    for mode, runs in modes.items():
        found = list(rights(runs, samples.correct, costs, stops))
        first_ms = np.array([ends_ms(ran, costs)[0] for ran in runs])
        last_ms = np.array([ends_ms(ran, costs)[-1] for ran in runs])
        yield {
            "mode": mode,
            "accuracy": round(float(np.mean(found)), 5),
            "answered": round(float(stops.still_running(first_ms).mean()), 5),
            "exits": round(float(np.mean([len(ran) for ran in runs])), 3),
            "edge_ms": round(float(last_ms.mean()), 3),
        }


def _planned(samples: Samples, costs: Costs, predictor: Predictor, stops: StopTimes) -> Runs:
    return [*map(planned(costs, predictor, stops), samples.confidence)]


def _until_sure(entropy: Floats, thresholds: Floats) -> Runs:
    """All exits up to the first that is sure."""
    return [range(exit_) for exit_ in first_sure_exit(entropy, thresholds).tolist()]


if __name__ == "__main__":
    main()
