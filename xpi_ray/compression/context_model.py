"""A symbol's distribution from what is decoded around it: in its channel, and in earlier channels.

    decoded tokens ─► linear forecast, in integers ─► 1 of 16 contexts ─► row of the step's tables

Channels come in two groups. In the first, a quarter of the positions, then another, then the half
between them; in the second the halves at once. So every step but a few knows its neighbours in
space, as in lossless image coding by context (Wu and Memon, "CALIC", 1997), and the earlier group
at its own positions; all of a step is decoded together. The forecast of a token adds the mean of
its known neighbours, the mean of what is known of its channel in this sample (so it adapts), and
every channel of the earlier group, with weights fitted by least squares.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.coders import Shape, Symbols
from xpi_ray.compression.symbol_model import (
    Alphabet,
    Arrays,
    Step,
    SymbolModel,
    Tokens,
    to_tables,
    widened,
)
from xpi_ray.errors import CodecError

GROUPS = 2
CONTEXTS = 16
NEIGHBOUR_UNIT = 12  # divides by 1, 2, 3 and 4 neighbours
RIDGE = 1e-3
LARGEST_WEIGHT = 127
FINEST = 500.0  # steps of a weight to a token at most, so that biases and thresholds fit 16 bits


class Forecast(NamedTuple):
    """The integers by which one step forecasts its tokens; letters: c channels, a earlier ones."""

    earlier: NDArray[np.int8]
    """(c, a): weights of the earlier groups' channels, at the same position."""
    own: NDArray[np.int8]
    """(2, c): weights of the mean of the known neighbours, and of the channel's known positions."""
    bias: NDArray[np.int16]
    """(c,)."""


class _Prepared(NamedTuple):
    """A step's integers as float64, over a common denominator; P positions."""

    earlier: NDArray[np.float64]
    """(c, a)."""
    near: NDArray[np.float64]
    """(c, 1): for the mean of the neighbours."""
    mean: NDArray[np.float64]
    """(c, 1): for the sum of all that is known."""
    bias: NDArray[np.float64]
    """(c, 1)."""
    averaging: NDArray[np.float64]
    """(k, P): of the k known positions of a channel, so that a product gives all means at once."""
    thresholds: NDArray[np.float64]
    """(15,)."""


class ContextModel(SymbolModel):
    """Tables chosen by a forecast from tokens that are known.

    Args:
        forecasts: One a step.
        thresholds: (steps, 15), ascending: of the forecasts, between contexts.
        tables: (steps · 16, tokens).

    Raises:
        CodecError: They do not fit each other.
    """

    name = "context"

    def __init__(
        self,
        shape: Shape,
        alphabet: int,
        forecasts: list[Forecast],
        thresholds: NDArray[np.int16],
        tables: NDArray[np.uint8],
    ) -> None:
        super().__init__(shape, alphabet, tables)
        self.steps = list(steps_of(shape))
        self.forecasts, self.thresholds = forecasts, thresholds
        if len(tables) != len(self.steps) * CONTEXTS:
            raise CodecError(f"expected {len(self.steps) * CONTEXTS} tables, got {len(tables)}")
        self._order = np.concatenate(lattice(*shape[1:]))
        self._prepared = [
            _prepare(step, forecast, limits, self._order, shape[2])
            for step, forecast, limits in zip(self.steps, forecasts, thresholds, strict=True)
        ]

    @property
    def order(self) -> NDArray[np.intp]:
        """The lattice's parts, one behind the other."""
        return self._order

    def rows(self, number: int, tokens: Tokens) -> NDArray[np.intp]:
        """By the context of each; leading axes of ``tokens`` are samples."""
        scores = forecast(self.steps[number], self._prepared[number], tokens)
        contexts = np.searchsorted(self._prepared[number].thresholds, scores.ravel())
        return contexts + number * CONTEXTS

    @classmethod
    def fit(cls, symbols: Symbols, alphabet: int) -> Self:
        """Learn from the symbols (n, C, h, w) of training carries, a few thousand of them."""
        _, channels, height, width = symbols.shape
        shape, size = (channels, height, width), Alphabet.of(alphabet)
        order = np.concatenate(lattice(height, width))
        tokens = size.token_of[symbols].reshape(*symbols.shape[:2], -1)[..., order]
        known = widened(tokens)
        forecasts, thresholds, tables = [], [], []
        for step in steps_of(shape):
            found = fit_forecast(step, known, order, width)
            prepared = _prepare(step, found, np.zeros(CONTEXTS - 1, np.int16), order, width)
            scores = forecast(step, prepared, known).ravel() / _denominator(step)
            limits = np.quantile(scores, np.arange(1, CONTEXTS) / CONTEXTS)
            limits = np.clip(np.rint(limits), -(2**15), 2**15 - 1)
            contexts = np.searchsorted(limits, scores)
            here = tokens[:, step.channels, step.positions].ravel()
            counts = np.bincount(
                contexts * len(size.first) + here, minlength=CONTEXTS * len(size.first)
            )
            forecasts.append(found)
            thresholds.append(limits.astype(np.int16))
            tables.append(to_tables(counts.reshape(CONTEXTS, -1)))
        return cls(shape, alphabet, forecasts, np.stack(thresholds), np.concatenate(tables))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Few arrays, whatever the number of steps."""
        weights = [part.ravel() for each in self.forecasts for part in (each.earlier, each.own)]
        return {
            "shape": np.array([*self.shape, self.alphabet], np.int32),
            "weights": np.concatenate(weights),
            "biases": np.concatenate([each.bias for each in self.forecasts]),
            "thresholds": self.thresholds,
            "tables": self.tables,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Make it again; CodecError if the arrays do not fit each other."""
        *sizes, alphabet = arrays["shape"].tolist()
        shape = (sizes[0], sizes[1], sizes[2])
        groups = [step.channels for step in steps_of(shape)]
        counts = [(group.stop - group.start, group.start) for group in groups]
        expected = {
            "weights": (
                np.dtype(np.int8),
                (sum(count * (before + 2) for count, before in counts),),
            ),
            "biases": (np.dtype(np.int16), (sum(count for count, _ in counts),)),
            "thresholds": (np.dtype(np.int16), (len(counts), CONTEXTS - 1)),
        }
        found = {name: (arrays[name].dtype, arrays[name].shape) for name in expected}
        if found != expected:
            raise CodecError(f"expected arrays {expected} for carries {shape}, got {found}")
        weights, biases, forecasts = arrays["weights"], arrays["biases"], list[Forecast]()
        for count, before in counts:
            earlier, own, weights = np.split(weights, np.cumsum([count * before, 2 * count]))
            forecasts.append(
                Forecast(earlier.reshape(count, before), own.reshape(2, count), biases[:count])
            )
            biases = biases[count:]
        return cls(shape, alphabet, forecasts, arrays["thresholds"], arrays["tables"])


def lattice(height: int, width: int) -> list[NDArray[np.intp]]:
    """Positions where both coordinates are even, where both are odd, and the others.

    The first two are the dark fields of a chessboard: every other field lies between them.
    """
    y, x = np.divmod(np.arange(height * width), width)
    even, odd = (y % 2 == 0) & (x % 2 == 0), (y % 2 == 1) & (x % 2 == 1)
    return [np.flatnonzero(each) for each in (even, odd, ~even & ~odd)]


def steps_of(shape: Shape) -> Iterator[Step]:
    """Groups of channels, and the parts of the lattice in each, none of them empty."""
    channels, height, width = shape
    first, second, rest = np.cumsum([len(part) for part in lattice(height, width)]).tolist()
    edges = [channels * group // GROUPS for group in range(GROUPS + 1)]
    for low, high in pairwise(edges):
        ends = (0, first, second, rest) if low == 0 else (0, second, rest)
        for start, stop in pairwise(ends):
            if low < high and start < stop:
                yield Step(slice(low, high), slice(start, stop))


def neighbours(step: Step, order: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """Places (4, P), in the model's order, of the known neighbours of a step's positions.

    Those beside, above and below; where none of these is known, those across. Where there are
    fewer than four, the place behind the last, which is zero in ``Tokens``.
    """
    y, x = np.divmod(order, width)
    known, wanted = slice(0, step.positions.start), step.positions
    places = np.full((len(order) // width + 2, width + 2), len(order))
    places[y[known] + 1, x[known] + 1] = np.arange(step.positions.start)
    beside, across = (
        np.stack([places[y[wanted] + 1 + down, x[wanted] + 1 + right] for down, right in offsets])
        for offsets in (((-1, 0), (0, -1), (0, 1), (1, 0)), ((-1, -1), (-1, 1), (1, -1), (1, 1)))
    )
    return np.where((beside < len(order)).any(0), beside, across)


def forecast(step: Step, prepared: _Prepared, tokens: Tokens) -> NDArray[np.float64]:
    """Forecasts (..., c, P) of a step's tokens, times the step's denominator; exact integers."""
    known = tokens[..., step.channels, : step.positions.start]
    scores = prepared.earlier @ tokens[..., : step.channels.start, step.positions]
    scores += prepared.near * (known @ prepared.averaging)
    scores += prepared.bias + prepared.mean * known.sum(-1, keepdims=True)
    return scores


def _denominator(step: Step) -> int:
    """Makes integers of the mean over neighbours and of that over known positions."""
    known: int = step.positions.start
    return NEIGHBOUR_UNIT * max(known, 1)


def _prepare(
    step: Step, found: Forecast, limits: NDArray[np.int16], order: NDArray[np.intp], width: int
) -> _Prepared:
    whole = _denominator(step)
    own = found.own.astype(np.float64)[..., None]
    near = neighbours(step, order, width)
    averaging = np.zeros((len(order) + 1, near.shape[1]))
    np.add.at(averaging, (near, np.arange(near.shape[1])), whole // _count_known(near, order))
    return _Prepared(
        earlier=found.earlier.astype(np.float64) * whole,
        near=own[0],
        mean=own[1] * NEIGHBOUR_UNIT,
        bias=found.bias.astype(np.float64)[:, None] * whole,
        averaging=averaging[: step.positions.start],
        thresholds=limits.astype(np.float64) * whole,
    )


def _count_known(near: NDArray[np.intp], order: NDArray[np.intp]) -> NDArray[np.intp]:
    """(P,): how many neighbours are known, 1 where none is."""
    counts: NDArray[np.intp] = np.maximum((near < len(order)).sum(0), 1)
    return counts


def fit_forecast(step: Step, tokens: Tokens, order: NDArray[np.intp], width: int) -> Forecast:
    """Least squares over samples (n, C, h·w), a channel at a time, rounded to 8-bit weights."""
    earlier = tokens[:, : step.channels.start, step.positions]
    samples, count, places = earlier.shape
    shared = earlier.swapaxes(1, 2).reshape(samples * places, count)
    gram = shared.T @ shared
    around = neighbours(step, order, width)
    weights = []
    for channel in range(step.channels.start, step.channels.stop):
        known = tokens[:, channel, : step.positions.start]
        near = tokens[:, channel].take(around, axis=-1).sum(1) / _count_known(around, order)
        mean = known.sum(1, keepdims=True) / max(known.shape[1], 1)
        wanted = tokens[:, channel, step.positions]
        own = [near, np.broadcast_to(mean, near.shape), np.ones_like(near), wanted]
        weights.append(_solve(shared, gram, np.stack([each.ravel() for each in own], axis=1)))
    found = np.stack(weights)  # (c, a + 3)
    scale = min(LARGEST_WEIGHT / max(np.abs(found[:, :-1]).max(), 1e-9), FINEST)
    rounded = np.rint(found * scale)
    return Forecast(
        rounded[:, :-3].astype(np.int8),
        rounded[:, -3:-1].T.astype(np.int8),
        np.clip(rounded[:, -1], -(2**15), 2**15 - 1).astype(np.int16),
    )


def _solve(
    shared: NDArray[np.float64], gram: NDArray[np.float64], own: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights of the shared regressors and of all but the last column of ``own``, the target."""
    crossed, inner = shared.T @ own, own.T @ own
    left = np.block([[gram, crossed[:, :-1]], [crossed[:, :-1].T, inner[:-1, :-1]]])
    left[np.diag_indices(len(left))] += RIDGE * left.diagonal().mean() + 1e-9
    right = np.concatenate([crossed[:, -1], inner[:-1, -1]])
    return np.linalg.solve(left, right)
