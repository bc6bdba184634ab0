"""Plans for requests that may be stopped at any time, judged on recorded confidences and times.

    confidences ─► strategy ─► exits that run ─┐
                 rights, costs, stop times ────┴─► accuracy at the stop

The chance that a stop falls between two exits weighs what the first of them says, so no stop is
drawn. Strategies look at confidences of exits only once these ran. EINet's baselines: the same
exits for all (a quarter, a half, all of them, the last one), and all of them until one is sure.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.elastic.guide import Costs, Guide
from xpi_ray.elastic.planner import Search, exact
from xpi_ray.elastic.predictor import Predictor
from xpi_ray.elastic.stop_times import StopTimes

Floats = NDArray[np.float64]


class Samples(NamedTuple):
    """What the exits say of each image, calibrated, and whether that is right."""

    confidence: NDArray[np.float32]
    """(n, N)."""
    correct: NDArray[np.bool_]
    """(n, N)."""


Strategy = Callable[[NDArray[np.float32]], Sequence[int]]
"""From an image's confidences, (N,), to the indices of the exits that run, ascending."""


def planned(
    costs: Costs, predictor: Predictor, stops: StopTimes, search: Search = exact
) -> Strategy:
    """Plan before the first exit and after each."""

    def run(confidence: NDArray[np.float32]) -> Sequence[int]:
        guide = Guide(costs, predictor, stops, search)
        return guided(guide, costs, lambda exit_: float(confidence[exit_ - 1]))

    return run


def guided(guide: Guide, costs: Costs, confidence: Callable[[int], float]) -> list[int]:
    """Run one request as a guide says, until nothing ahead is worth its time.

    Args:
        guide: Of a request that begins.
        costs: Times that count, whatever it takes here.
        confidence: Runs an exit, 1..N, with the blocks before it, and tells how sure that is.

    Returns:
        Indices of the exits that ran, ascending.
    """
    ran: list[int] = []
    elapsed_ms, block = 0.0, 0
    while block < len(costs.block_ms) and (exit_ := guide.next_exit(elapsed_ms)):
        guide.saw(exit_, confidence(exit_))
        elapsed_ms += costs.block_ms[block:exit_].sum() + costs.exit_ms[exit_ - 1]
        ran.append(exit_ - 1)
        block = exit_
    return ran


def static(exits: Sequence[int]) -> Strategy:
    """The same exits, by index, whatever they say."""
    return lambda confidence: exits


def until_sure(threshold: float, exits: Sequence[int]) -> Strategy:
    """All of these exits, up to the first that is surer than ``threshold``."""

    def run(confidence: NDArray[np.float32]) -> Sequence[int]:
        sure = confidence[list(exits)] >= threshold
        return exits[: int(sure.argmax()) + 1] if sure.any() else exits

    return run


def spread(share: float, exits: Sequence[int]) -> list[int]:
    """That share of the exits, evenly apart, the last one among them."""
    count = max(round(share * len(exits)), 1)
    return [exits[-1 - int(number * len(exits) / count)] for number in reversed(range(count))]


def ends_ms(ran: Sequence[int], costs: Costs) -> Floats:
    """When each exit that runs ends, since the request began."""
    chosen = np.asarray(ran, np.intp)
    reach_ms: Floats = np.cumsum(costs.block_ms)[chosen]
    return reach_ms + np.cumsum(costs.exit_ms[chosen])


def rights(
    runs: Iterable[Sequence[int]], correct: NDArray[np.bool_], costs: Costs, stops: StopTimes
) -> Iterator[float]:
    """Of each image, the chance that the answer at the stop is right; none in hand is wrong.

    Args:
        runs: Indices of the exits that run, ascending, of each of n images.
        correct: Whether each exit is right, (n, N).
        costs: Of blocks and exits.
        stops: When requests are stopped.
    """
    for ran, right in zip(runs, correct, strict=True):
        left = stops.still_running(ends_ms(ran, costs))
        yield float((left - np.append(left[1:], 0.0)) @ right[list(ran)]) if len(ran) else 0.0
