"""What is likely of the digits that refine symbols, once all of the coarser symbols are known.

    symbols at step 3s ─► linear forecast, in integers ─► 1 of 64 contexts ─► table ─┐
    digits -1, 0, 1 ───────────────────────────────────────────────── RangeEncoder ─┴► bytes

A symbol at step s is three times the symbol at step 3s, plus a digit. What decides a digit's table
is the coarser symbols: at its own place, around it on all sides, and in the other channels; so all
digits are coded in one go. Sent layer after layer, a carry takes no more bytes than at once with
the context model, as Equitz and Cover, "Successive Refinement of Information" (1991), have it for
ideal coders: what the finer past would tell is made up for by the coarser future.
"""

from typing import Any, NamedTuple, Self

import constriction
import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.coders import Shape
from xpi_ray.compression.range_coder import bits_in, check_size, decoder_of, shortest
from xpi_ray.compression.symbol_model import Arrays, frequencies, to_tables
from xpi_ray.errors import CodecError

Layer = NDArray[np.int32]
"""Symbols of a carry at one step, (C, h, w), of either sign."""

DIGITS = 3
CLASSES = 4  # of the coarser symbol: negative, zero, one, more
CONTEXTS = 16  # in each class, of equal width
SPAN = 5.0  # standard deviations of the forecast that a class's contexts cover
OWN = 6  # regressors beside the other channels
UNIT = 16  # in which means are counted, so that they stay integers
ACROSS_LARGEST, OWN_LARGEST = 127, 2**15 - 1
FINEST = 4_000.0  # steps of an own weight to a digit at most
LARGEST_SHIFT = 40
RIDGE = 1e-4

_FAMILY = constriction.stream.model.Categorical(perfect=False)


class Weights(NamedTuple):
    """The integers of the forecast."""

    across: NDArray[np.int8]
    """(C, C): of every channel's symbol at the same place; (C, 0) where that buys too little."""
    own: NDArray[np.int16]
    """(C, 6), in the order of ``_Field.regressors``."""
    multiplier: int
    """How many steps of ``own`` one step of ``across`` is, 1 or more."""


class Contexts(NamedTuple):
    """How a forecast becomes a context: (forecast + offset) >> shift, kept within 0..15."""

    offsets: NDArray[np.int32]
    """(4,): by class."""
    shift: int
    """0..40."""


class RefinementModel:
    """Tables for the digits of carries of one shape, chosen by a forecast.

    Args:
        shape: (C, h, w).
        weights: See there.
        contexts: See there.
        tables: 8-bit floats (64, 3), see ``frequencies``.

    Raises:
        CodecError: They do not fit each other.
    """

    def __init__(
        self, shape: Shape, weights: Weights, contexts: Contexts, tables: NDArray[np.uint8]
    ) -> None:
        self.shape, self.weights, self.contexts, self.tables = shape, weights, contexts, tables
        channels, across = shape[0], weights.across.shape
        found = [across[0], *weights.own.shape, *contexts.offsets.shape, *tables.shape]
        expected = [channels, channels, OWN, CLASSES, CLASSES * CONTEXTS, DIGITS]
        if found != expected or across[1] not in (0, channels):
            raise CodecError(
                f"expected arrays of sizes {expected} for carries {shape}, got {found}"
            )
        if weights.multiplier < 1 or not 0 <= contexts.shift <= LARGEST_SHIFT:
            raise CodecError(
                f"expected a multiplier above 0 and a shift of 0..{LARGEST_SHIFT}, got "
                f"{weights.multiplier} and {contexts.shift}"
            )
        self._across = weights.across.astype(np.float64) * weights.multiplier
        self._own = weights.own.astype(np.float64).T[..., None]  # (6, C, 1)
        self._frequencies = frequencies(tables).astype(np.float32)
        self._bits = bits_in(self._frequencies)

    def rows(self, coarse: Layer) -> NDArray[np.intp]:
        """The table of each digit, (C, h, w), from the symbols at step 3s."""
        field = _Field(coarse)
        return field.inside(self._contexts(self._forecast(field), field.values))

    def encode(self, digits: NDArray[np.int8], rows: NDArray[np.intp]) -> bytes:
        """Return bytes for digits, -1, 0 or 1, of some channels and their rows."""
        encoder = constriction.stream.queue.RangeEncoder()
        symbols = digits.ravel().astype(np.int32) + 1
        encoder.encode(symbols, _FAMILY, self._frequencies.take(rows.ravel(), axis=0))
        return shortest(encoder)

    def decode(self, data: bytes, rows: NDArray[np.intp]) -> NDArray[np.int8]:
        """Return the digits of these rows; CodecError when ``data`` are no bytes of such."""
        try:
            symbols = decoder_of(data).decode(_FAMILY, self._frequencies.take(rows.ravel(), axis=0))
        except AssertionError as err:  # constriction's own, for words that no encoder writes
            raise CodecError(f"expected range-coded digits: {err}") from err
        check_size(data, float(self._bits[rows.ravel(), symbols].sum()))
        digits: NDArray[np.int8] = (symbols - 1).astype(np.int8)
        return digits.reshape(rows.shape)

    def _forecast(self, field: "_Field") -> NDArray[np.float64]:
        """Forecasts of the digits, in steps of the own weights; laid out as the field."""
        symbol, present, beside, across, mean, bias = self._own
        forecast: NDArray[np.float64] = symbol * field.values
        if self._across.size:
            forecast += self._across @ field.values
        forecast += present * (field.values != 0)
        forecast += beside * field.beside
        forecast += across * field.across
        forecast += mean * field.mean + bias
        return forecast

    def _contexts(
        self, forecast: NDArray[np.float64], values: NDArray[np.float64]
    ) -> NDArray[np.intp]:
        classes = _class(values)
        places = (forecast.astype(np.int64) + self.contexts.offsets.take(classes)) >> (
            self.contexts.shift
        )
        np.maximum(places, 0, out=places)
        np.minimum(places, CONTEXTS - 1, out=places)
        places += CONTEXTS * classes
        return places

    @classmethod
    def fit(cls, coarse: Layer, digits: NDArray[np.int8], *, across: bool) -> Self:
        """Learn from training carries: symbols (n, C, h, w) at step 3s, and their digits.

        Args:
            coarse: A few hundred carries'.
            digits: Of the same shape.
            across: Whether forecasts ask the other channels.
        """
        channels, height, width = coarse.shape[1:]
        field = _Field(coarse)
        own = [
            field.inside(np.broadcast_to(each, field.values.shape)) for each in field.regressors()
        ]
        others = channels if across else 0
        shared = own[0].swapaxes(0, 1).reshape(channels, -1)[:others]  # (C or 0, places)
        gram = shared @ shared.T
        found = np.stack(
            [
                _solve(
                    shared,
                    gram,
                    np.stack([each[:, channel].ravel() for each in own]),
                    digits[:, channel].ravel().astype(np.float64),
                )
                for channel in range(channels)
            ]
        )
        weights = _rounded(found[:, :others], found[:, others:])
        blank = np.zeros((CLASSES * CONTEXTS, DIGITS), np.uint8)
        shape = (channels, height, width)
        model = cls(shape, weights, Contexts(np.zeros(CLASSES, np.int32), 0), blank)
        forecast = model._forecast(field)
        model.contexts = _spread(field.inside(forecast), _class(own[0]))
        rows = field.inside(model._contexts(forecast, field.values))
        pairs = rows * DIGITS + digits + 1
        counts = np.bincount(pairs.ravel(), minlength=blank.size).reshape(blank.shape)
        return cls(shape, weights, model.contexts, to_tables(counts))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs."""
        sizes = [*self.shape, self.weights.multiplier, self.contexts.shift]
        return {
            "shape": np.array(sizes, np.int32),
            "across": self.weights.across,
            "own": self.weights.own,
            "offsets": self.contexts.offsets,
            "tables": self.tables,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Make it again; CodecError if the arrays do not fit each other."""
        *shape, multiplier, shift = arrays["shape"].tolist()
        weights = Weights(arrays["across"], arrays["own"], multiplier)
        contexts = Contexts(arrays["offsets"], shift)
        return cls((shape[0], shape[1], shape[2]), weights, contexts, arrays["tables"])


class _Field:
    """Symbols laid out so that every neighbour is a shift away, and what these tell; integers.

    Rows lie one behind the other with a zero after each, and zeros around all: (..., C, h·(w+1)).
    """

    def __init__(self, symbols: Layer) -> None:
        *lead, height, self._width = symbols.shape
        row = self._width + 1
        size = height * row
        padded = np.zeros((*lead, size + 2 * row + 2))
        self.values = padded[..., 1 + row : 1 + row + size]
        """The symbols."""
        self._rows = (*lead, height, row)
        self.inside(self.values)[...] = symbols
        vertical = padded[..., : size + 2] + padded[..., 2 * row :]  # above and below, and beyond
        self.beside = vertical[..., 1:-1] + padded[..., row : row + size]
        """The sum of those above, below, left and right."""
        self.beside += padded[..., row + 2 : row + 2 + size]
        self.across = vertical[..., :-2] + vertical[..., 2:]
        """The sum of the four across."""
        total = self.values.sum(-1, keepdims=True)
        self.mean = np.floor(total * UNIT / (height * self._width))
        """Of the channel, in sixteenths; (..., C, 1)."""

    def inside(self, field: NDArray[Any]) -> NDArray[Any]:
        """What is laid out as the values are, without the zeros: (..., C, h, w), a view."""
        return field.reshape(self._rows)[..., : self._width]

    def regressors(self) -> list[NDArray[np.float64]]:
        """In the order of the own weights."""
        present = (self.values != 0).astype(np.float64)
        return [self.values, present, self.beside, self.across, self.mean, np.ones((1, 1))]


def _class(symbols: NDArray[np.float64]) -> NDArray[np.intp]:
    """0 for negative symbols, 1 for zero, 2 for one, 3 for more."""
    kept = np.minimum(np.maximum(symbols, -1), 2)
    classes: NDArray[np.intp] = kept.astype(np.intp) + 1
    return classes


def _spread(forecast: NDArray[np.float64], classes: NDArray[np.intp]) -> Contexts:
    """Contexts around the middle of each class's forecasts, as wide as most of them need."""
    spread = max((float(forecast[classes == n].std()) for n in np.unique(classes)), default=0.0)
    shift = int(np.clip(np.ceil(np.log2(max(SPAN * spread / CONTEXTS, 1))), 0, LARGEST_SHIFT))
    middle = CONTEXTS * 2**shift // 2
    offsets = np.zeros(CLASSES, np.int32)
    for number in np.unique(classes):
        offsets[number] = middle - int(np.median(forecast[classes == number]))
    return Contexts(offsets, shift)


def _rounded(across: NDArray[np.float64], own: NDArray[np.float64]) -> Weights:
    """Integers in the ratio of the weights."""
    largest = max(np.abs(own).max(), 1e-9)
    scale = min(OWN_LARGEST / largest, FINEST)
    multiplier = 1
    if across.size:
        multiplier = max(1, int(np.ceil(np.abs(across).max() * scale / ACROSS_LARGEST)))
    return Weights(
        np.rint(across * scale / multiplier).astype(np.int8),
        np.rint(own * scale).astype(np.int16),
        multiplier,
    )


def _solve(
    shared: NDArray[np.float64],
    gram: NDArray[np.float64],
    own: NDArray[np.float64],
    wanted: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Least squares on both kinds of regressors (·, places), with a little of the ridge."""
    crossed = shared @ own.T
    left = np.block([[gram, crossed], [crossed.T, own @ own.T]])
    left[np.diag_indices(len(left))] += RIDGE * left.diagonal().mean() + 1e-9
    right = np.concatenate([shared @ wanted, own @ wanted])
    return np.linalg.solve(left, right)
