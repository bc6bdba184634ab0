"""How accurate are answers at an unpredictable stop, by which exits are planned to run?

    python -m benchmarks.elastic_inference [--runs FOLDER] [--images N]

    runs of `xpi train` ─► costs, confidences ─► every strategy, uniform stops ─► accuracy

EINet's comparison (ICDCS'23): stops fall evenly on the time that the whole network takes with all
exits. Networks are looked for in ``runs/elastic/<dataset>-<network>-<seed>/bundle``. Temperatures,
predictors and which of them plans are chosen on the validation split, accuracies are of test
images. Costs are measured once for each data set and network, on this machine.

Writes ``elastic_inference.json`` and ``elastic_predictors.json``.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import Progress
from torch import Tensor

from benchmarks.elastic import Samples, Strategy, planned, rights, spread, static, until_sure
from benchmarks.result import Row, write
from xpi_ray.bundle import SUMS, Bundle
from xpi_ray.elastic.baselines import ExitMeans, LastLogistic, NearestNeighbours, RunningMean
from xpi_ray.elastic.confidence import confidence, fit_temperatures
from xpi_ray.elastic.guide import Costs
from xpi_ray.elastic.measure import exit_logits, measure_costs
from xpi_ray.elastic.predictor import MaskedPerceptron, Predictor
from xpi_ray.elastic.searches import hybrid, random
from xpi_ray.elastic.stop_times import StopTimes
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.training.data import Split, load

RUNS = Path("runs") / "elastic"
PREDICTORS = {
    "perceptron": MaskedPerceptron,
    "last_logistic": LastLogistic,
    "nearest_neighbours": NearestNeighbours,
    "running_mean": RunningMean,
    "exit_means": ExitMeans,
}
FITTED = 0.8  # of the validation split; the rest judges predictors
SURE = (0.9, 0.95, 0.99)
SHARES = {"static_25": 0.25, "static_50": 0.5, "static_100": 1.0}
COSTED = 50  # images


class Network(NamedTuple):
    """A trained one, and what it says."""

    dataset: str
    name: str
    seed: int
    costs: Costs
    fitted: Samples
    judging: Samples
    test: Samples

    @property
    def stops(self) -> StopTimes:
        """Uniform over the time that all blocks and exits take."""
        exits_ms = self.costs.exit_ms[np.isfinite(self.costs.exit_ms)]
        return StopTimes.uniform(float(self.costs.block_ms.sum() + exits_ms.sum()))

    @property
    def exits(self) -> list[int]:
        """Indices of the blocks that have one."""
        return np.flatnonzero(np.isfinite(self.costs.exit_ms)).tolist()


def main() -> None:
    """Judge all that was trained, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of trained networks")
    parser.add_argument("--images", type=int, default=10_000, help="of the test split, at most")
    options = parser.parse_args()
    rows: list[Row] = []
    errors: list[Row] = []
    known: dict[tuple[str, str], Costs] = {}
    folders = sorted(path.parent.parent for path in options.runs.glob(f"*/bundle/{SUMS}"))
    with Progress() as progress:
        for folder in progress.track(folders, description="networks"):
            network = read(folder, known, options.images)
            predictors = fit(network)
            errors += judged(network, predictors)
            rows += compared(network, predictors, progress)
    settings = {"images": options.images, "stops": "uniform"}
    print(write("elastic_inference", settings, rows))
    print(write("elastic_predictors", {**settings, "fitted": FITTED}, errors))


def read(folder: Path, known: dict[tuple[str, str], Costs], images: int) -> Network:
    """A trained network; what it costs is measured unless that is known."""
    dataset, name, seed = folder.name.rsplit("-", 2)
    network, splits = Bundle.load(folder / "bundle").network.prepare(), load(dataset)
    if (dataset, name) not in known:
        known[dataset, name] = measure_costs(network, splits.validation.images, COSTED)
    held_out, labels = exit_logits(network, splits.validation.images), splits.validation.labels
    temperatures = fit_temperatures(held_out, labels.numpy())
    validation = _samples(network, held_out, labels, temperatures)
    count = round(FITTED * len(labels))
    fitted, judging = (
        Samples(*(array[part] for array in validation))
        for part in (slice(count), slice(count, None))
    )
    test = _said(network, splits.test, images, temperatures)
    return Network(dataset, name, int(seed), known[dataset, name], fitted, judging, test)


def _said(
    network: ProgressiveNetwork, split: Split, images: int, temperatures: np.ndarray
) -> Samples:
    logits = exit_logits(network, split.images[:images])
    return _samples(network, logits, split.labels[:images], temperatures)


def _samples(
    network: ProgressiveNetwork, logits: np.ndarray, labels: Tensor, temperatures: np.ndarray
) -> Samples:
    """By block; where there is no exit, nothing is sure or right."""
    exits = np.array(network.exits) - 1
    sure = np.zeros((len(labels), network.num_blocks), np.float32)
    right = np.zeros(sure.shape, np.bool_)
    sure[:, exits] = confidence(logits, temperatures)
    right[:, exits] = logits.argmax(-1) == labels.numpy()[:, None]
    return Samples(sure, right)


def fit(network: Network) -> dict[str, Predictor]:
    """Each predictor on the fitted part of the validation split."""
    sure = network.fitted.confidence
    return {name: kind.fit(sure, sure) for name, kind in PREDICTORS.items()}


def judged(network: Network, predictors: Mapping[str, Predictor]) -> Iterator[Row]:
    """Errors of what each predictor expects of later exits, by the exits seen before."""
    exits = np.array(network.exits)
    sure, right = network.judging
    for name, predictor in predictors.items():
        for seen in range(len(exits)):
            shown = np.zeros(sure.shape, np.bool_)
            shown[:, exits[:seen]] = True
            expected, ahead = predictor(sure, shown), exits[seen:]
            error = expected[:, ahead] - sure[:, ahead]
            yield {
                **_named(network),
                "predictor": name,
                "seen": seen,
                "mean_absolute_error": round(float(np.abs(error).mean()), 4),
                "brier": round(float(((expected - right)[:, ahead] ** 2).mean()), 4),
            }


def compared(
    network: Network, predictors: Mapping[str, Predictor], progress: Progress
) -> Iterator[Row]:
    """The accuracy of every strategy on test images."""
    best = max(
        predictors,
        key=lambda name: _accuracy(
            network, network.judging, planned(network.costs, predictors[name], network.stops)
        ),
    )
    every = strategies(network, predictors, best)
    for name, strategy in progress.track(every.items(), description=network.name):
        yield {
            **_named(network),
            "plan": name,
            "accuracy": round(_accuracy(network, network.test, strategy), 5),
            "predictor": best if name.startswith("planner") else "",
        }


def strategies(
    network: Network, predictors: Mapping[str, Predictor], best: str
) -> dict[str, Strategy]:
    """EINet's comparison by name: the planner, other searches, and plans that do not look ahead."""
    costs, stops, exits = network.costs, network.stops, network.exits
    chosen = predictors[best]
    return {
        "planner": planned(costs, chosen, stops),
        "planner_hybrid": planned(costs, chosen, stops, hybrid),
        "planner_random": planned(costs, chosen, stops, random),
        "planner_perfect": _knowing(network),
        **{name: static(spread(share, exits)) for name, share in SHARES.items()},
        **{f"confidence_{round(100 * sure)}": until_sure(sure, exits) for sure in SURE},
        "single_exit": static(exits[-1:]),
    }


def _knowing(network: Network) -> Strategy:
    """The planner with a predictor that is never wrong about confidences."""

    def run(sure: np.ndarray) -> list[int]:
        def perfect(confidence: np.ndarray, seen: np.ndarray) -> np.ndarray:
            del confidence, seen
            return sure[None]

        return list(planned(network.costs, perfect, network.stops)(sure))

    return run


def _accuracy(network: Network, samples: Samples, strategy: Strategy) -> float:
    runs = map(strategy, samples.confidence)
    return float(np.mean(list(rights(runs, samples.correct, network.costs, network.stops))))


def _named(network: Network) -> Row:
    return {"dataset": network.dataset, "network": network.name, "seed": network.seed}


if __name__ == "__main__":
    main()
