"""Thresholds from held-out data: the cheapest that keep the last exit's accuracy.

    outcomes on validation (entropy, correct) ─► calibrate ─► thresholds ─► plan

Bases are all shared thresholds, and for each of a row of prices the thresholds that minimise
cost + price · error. Candidates are the bases and whatever changes one threshold of a base. None
depends on the tolerance, which only picks the cheapest candidate that is accurate enough; therefore
more tolerance never costs more, and no result costs more than a shared threshold of the grid. Where
a block has no exit, nobody leaves, and the threshold is 0.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.exits.rule import first_sure_exit

GRID_LEVELS = 256
# Of one error, in runs of the whole network: from "accurate at any cost" to "cheap at any error".
PRICES = np.geomspace(1e4, 1e-1, 96)

Places = NDArray[np.intp]
"""One threshold for each exit but the last, as places on the grid, (N-1,)."""


class Calibration(NamedTuple):
    """Thresholds, and what they do on the data that they were chosen on."""

    thresholds: tuple[float, ...]
    """τ_1..τ_N, 0..1; the last is 1."""
    accuracy: float
    """0..1."""
    mean_cost: float
    """Of one sample, in the unit of the costs given."""
    exit_shares: tuple[float, ...]
    """Share of the samples that leave at each exit, (N,)."""


def calibrate(
    entropy: NDArray[np.floating],
    correct: NDArray[np.bool_],
    cost: NDArray[np.floating],
    tolerance: float,
) -> Calibration:
    """Choose thresholds of least mean cost that lose at most ``tolerance`` accuracy.

    Args:
        entropy: Normalised, 0..1, of every held-out sample at every exit, (n, N); above 1 where a
            block has no exit. The last one has.
        correct: Whether the exit's class is the right one, (n, N).
        cost: Of leaving at each exit, all blocks up to it included, positive, (N,).
        tolerance: Accuracy that may be lost against the last exit, a share: 0.005 is half a point.

    Returns:
        Thresholds that keep the tolerance on this data. Only where wrong exits of entropy 0, which
        leave at any threshold, make that impossible: the most accurate base.
    """
    exits = (entropy <= 1).all(0)
    found = _calibrate(entropy[:, exits], correct[:, exits], cost[exits], tolerance)
    thresholds, shares = np.zeros((2, len(cost)))
    thresholds[exits], shares[exits] = found.thresholds, found.exit_shares
    return found._replace(thresholds=tuple(thresholds.tolist()), exit_shares=tuple(shares.tolist()))


def _calibrate(
    entropy: NDArray[np.floating],
    correct: NDArray[np.bool_],
    cost: NDArray[np.floating],
    tolerance: float,
) -> Calibration:
    """The same, where all blocks have exits."""
    # 0 is on the grid: at it (almost) nobody leaves.
    pooled = np.append(entropy[:, :-1], 0.0)
    shares = np.linspace(0, 1, GRID_LEVELS)
    grid = np.unique(np.quantile(pooled, shares, method="inverted_cdf"))
    samples = _Samples(np.searchsorted(grid, entropy[:, :-1]), correct, cost, len(grid))
    least = float(correct[:, -1].mean()) - tolerance
    found = [
        _measure(np.append(grid[_cheapest_change(base, samples, least)], 1.0), entropy, samples)
        for base in _bases(samples)
    ]
    accurate = [each for each in found if each.accuracy >= least]
    if not accurate:
        return max(found, key=lambda each: each.accuracy)
    return min(accurate, key=lambda each: each.mean_cost)


class _Samples(NamedTuple):
    rank: NDArray[np.intp]
    """Lowest place on the grid at which a sample leaves at an exit, (n, N-1)."""
    correct: NDArray[np.bool_]
    """(n, N)."""
    cost: NDArray[np.floating]
    """(N,)."""
    grid_size: int


def _measure(
    thresholds: NDArray[np.floating], entropy: NDArray[np.floating], samples: _Samples
) -> Calibration:
    exits = first_sure_exit(entropy, thresholds) - 1
    leaving = np.bincount(exits, minlength=len(samples.cost)) / len(exits)
    return Calibration(
        tuple(thresholds.tolist()),
        float(samples.correct[np.arange(len(exits)), exits].mean()),
        float(leaving @ samples.cost),
        tuple(leaving.tolist()),
    )


def _bases(samples: _Samples) -> Iterator[Places]:
    free = samples.rank.shape[1]
    for place in range(samples.grid_size):
        yield np.full(free, place)
    for price in PRICES * samples.cost[-1]:
        yield _descend(np.zeros(free, np.intp), samples, samples.cost + price * ~samples.correct)


def _descend(places: Places, samples: _Samples, loss: NDArray[np.floating]) -> Places:
    """Lower the mean loss, in place, one threshold after the other until nothing improves."""
    rounding = 1e-9 * loss.max()
    improved = True
    while improved:
        improved = False
        for i, saved in _savings(places, samples, loss):
            best = saved.argmax()
            if saved[best] > rounding:
                places[i], improved = best, True
    return places


def _cheapest_change(base: Places, samples: _Samples, least: float) -> Places:
    """Change at most one threshold: least cost at an accuracy of ``least``, or else the base."""
    n = len(samples.rank)
    exits = first_sure_exit(np.pad(samples.rank, ((0, 0), (0, 1))), np.append(base, 0)) - 1
    right = samples.correct[np.arange(n), exits].sum()
    cost = np.broadcast_to(samples.cost, samples.correct.shape)
    best, most = base, -np.inf
    for (i, saved), (_, lost) in zip(
        _savings(base, samples, cost),
        _savings(base, samples, samples.correct.astype(float)),
        strict=True,
    ):
        allowed = np.where((right - lost) / n >= least, saved, -np.inf)
        place = allowed.argmax()
        if allowed[place] > most:
            best, most = base.copy(), allowed[place]
            best[i] = place
    return best


def _savings(
    places: Places, samples: _Samples, loss: NDArray[np.floating]
) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """What moving one threshold to each place on the grid saves, the others where they are.

    Exits come last to first, for a sample that stays loses what a later exit makes it lose; the
    caller may move a threshold in ``places`` when it comes.

    Args:
        places: The thresholds now.
        samples: All of them.
        loss: Of a sample that leaves at an exit, (n, N).

    Yields:
        Index of the exit, and the loss saved, summed over the samples, (grid_size,).
    """
    stays = samples.rank > places
    arrives = np.ones_like(stays)
    arrives[:, 1:] = np.logical_and.accumulate(stays, axis=1)[:, :-1]
    staying = loss[:, -1]
    for i in reversed(range(len(places))):
        gain = (staying - loss[:, i]) * arrives[:, i]  # of each sample, by leaving at exit i
        gains = np.bincount(samples.rank[:, i], gain, samples.grid_size).cumsum()
        yield i, gains - gains[places[i]]
        staying = np.where(samples.rank[:, i] <= places[i], loss[:, i], staying)
