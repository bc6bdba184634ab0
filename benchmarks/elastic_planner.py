"""How long does it take to plan, and what do searches that are not exact give away?

    python -m benchmarks.elastic_planner [--problems 300]

Problems are drawn: blocks of 0.5 to 1.5 ms, exits of a tenth to a half of a block, confidences that
rise from exit to exit as those of a network do, with noise. Stops are uniform over the time of the
whole network, or recorded ones. All searches solve the same problems, in turns, in one process.

Writes ``benchmarks/results/elastic_planner.json``.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
from rich.progress import track

from benchmarks.result import Row, write
from xpi_ray.elastic.planner import Ahead, expectation
from xpi_ray.elastic.searches import SEARCHES
from xpi_ray.elastic.stop_times import StopTimes

EXITS = (3, 6, 14, 21, 40)
COMPARED = ("exact", "hybrid", "greedy", "random")
RECORDED = 300  # stops
NOISE = 0.05  # of confidences


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problems", type=int, default=300, help="of each size")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows: list[Row] = []
    for exits in EXITS:
        for kind in ("uniform", "recorded"):
            rng = np.random.default_rng(options.seed)
            rows += compared(exits, kind, rng, options.problems)
    print(write("elastic_planner", {"problems": options.problems}, rows, options.seed))


def compared(exits: int, kind: str, rng: np.random.Generator, problems: int) -> Iterator[Row]:
    """Times and gaps of every search over problems of one size."""
    times_ms: dict[str, list[float]] = {name: [] for name in COMPARED}
    gaps: dict[str, list[float]] = {name: [] for name in COMPARED}
    for _ in track(range(problems), f"{exits} exits, {kind} stops"):
        ahead = draw(exits, rng)
        stops = draw_stops(ahead, kind, rng)
        found = {}
        for name in COMPARED:
            SEARCHES[name](ahead, stops)  # its code and data are in the caches now
            started_s = time.perf_counter()
            plan = SEARCHES[name](ahead, stops)
            times_ms[name].append(1000 * (time.perf_counter() - started_s))
            found[name] = expectation(plan, ahead, stops)
        for name, value in found.items():
            gaps[name].append(found["exact"] - value)
    for name in COMPARED:
        yield {
            "planner": name,
            "exits": exits,
            "stops": kind,
            "p50_ms": round(float(np.quantile(times_ms[name], 0.5)), 5),
            "p99_ms": round(float(np.quantile(times_ms[name], 0.99)), 5),
            "optimality_gap": round(float(np.mean(gaps[name])), 6),
            "worst_gap": round(float(np.max(gaps[name])), 6),
        }


def draw(exits: int, rng: np.random.Generator) -> Ahead:
    """A request that begins."""
    block_ms = rng.uniform(0.5, 1.5, exits)
    exit_ms = block_ms * rng.uniform(0.1, 0.5, exits)
    rising = 1 - np.exp(-np.linspace(0.5, 2.5, exits))
    confidence = np.clip(rising + rng.normal(0, NOISE, exits), 0, 1)
    return Ahead(np.cumsum(block_ms), exit_ms, confidence, 0.0)


def draw_stops(ahead: Ahead, kind: str, rng: np.random.Generator) -> StopTimes:
    """When it may be stopped."""
    end_ms = float(ahead.reach_ms[-1] + ahead.exit_ms.sum())
    if kind == "uniform":
        return StopTimes.uniform(end_ms)
    return StopTimes.recorded(rng.gamma(2, end_ms / 3, RECORDED))


if __name__ == "__main__":
    main()
