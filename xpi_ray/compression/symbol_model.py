"""What training carries tell of a symbol before it is decoded.

    training carries ─► fit ─► model ─► arrays ─► bundle ─► the same model at edge and cloud
    symbols decoded so far ─► model ─► row of a table ─► RangeCoder

A symbol is coded as a *token*, with plain bits behind it where a token stands for several symbols;
the model predicts tokens. Both ends must reach the same rows to the last bit on any machine, so all
that decides them is integers: matrix products run in float64 on integers far below 2^53, where no
order of additions rounds.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.coders import Shape, Symbols, bits_of, count_of
from xpi_ray.errors import CodecError

Arrays = Mapping[str, NDArray[Any]]
Tokens = NDArray[np.float64]
"""(..., C, h·w + 1): tokens known so far, positions in the model's order, and a column of zeros."""

EXACT_TOKENS = 16  # symbols below are tokens of their own; above, each octave has two
PRIOR = 0.05  # of a symbol that a table has not seen, in occurrences
STEP_SYMBOLS = 2**13  # that order 0 decodes at once, so that their tables take little memory
TABLE_BITS = 19  # a table's frequencies add up to about 2^19


class Alphabet(NamedTuple):
    """How symbols are written as tokens and plain bits; all symbols are tokens up to 16 of them."""

    token_of: NDArray[np.uint8]
    """(alphabet,)"""
    first: NDArray[np.int32]
    """(tokens,): the lowest symbol of each."""
    plain_bits: NDArray[np.uint8]
    """(tokens,): of the distance from it, 0 where there is but one."""

    @classmethod
    def of(cls, size: int) -> Self:
        """For symbols 0..size-1; CodecError if there are fewer than 2 or more than 65,536."""
        first, plain_bits = list(range(min(size, EXACT_TOKENS))), [0] * min(size, EXACT_TOKENS)
        bits = bits_of(EXACT_TOKENS) - 1
        while bits_of(size) and first[-1] + 2 ** plain_bits[-1] < size:
            for _ in range(2):
                first.append(first[-1] + 2 ** plain_bits[-1])
                plain_bits.append(bits)
            bits += 1
        token_of = np.searchsorted(first, np.arange(size), "right") - 1
        kept = int(token_of[-1]) + 1
        return cls(
            token_of.astype(np.uint8),
            np.array(first[:kept], np.int32),
            np.array(plain_bits[:kept], np.uint8),
        )


@dataclass(frozen=True)
class Step:
    """Symbols that are decoded together: some channels, at some positions of the model's order."""

    channels: slice
    positions: slice


class SymbolModel(ABC):
    """Probabilities of every symbol of carries of one shape.

    Args:
        shape: (C, h, w) of the carries, or of the segments of them that are coded apart.
        alphabet: Symbols are below it.
        tables: 8-bit floats (rows, tokens), see ``frequencies``.
    """

    name: ClassVar[str]
    steps: Sequence[Step]

    def __init__(self, shape: Shape, alphabet: int, tables: NDArray[np.uint8]) -> None:
        self.shape, self.alphabet, self.tables = shape, alphabet, tables
        self.symbols = Alphabet.of(alphabet)
        count_of(shape)
        if tables.shape[1:] != self.symbols.first.shape or tables.dtype != np.uint8:
            raise CodecError(
                f"expected tables of {len(self.symbols.first)} uint8 entries for {alphabet} "
                f"symbols, got {tables.shape} of {tables.dtype}"
            )

    @property
    @abstractmethod
    def order(self) -> NDArray[np.intp]:
        """Positions of a channel, row-major, in the order in which the steps have them."""

    @abstractmethod
    def rows(self, number: int, tokens: Tokens) -> NDArray[np.intp]:
        """The table of each symbol of a step, flat, from the tokens of earlier steps alone."""

    @abstractmethod
    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs."""


def frequencies(tables: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Integers that 8-bit floats stand for: 16 + the low 4 bits, shifted by the high 4; never 0."""
    wide = tables.astype(np.int64)
    return (16 + (wide & 15)) << (wide >> 4)


def to_tables(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """8-bit floats, as ``frequencies`` reads them, for counts (rows, tokens)."""
    likely = counts + PRIOR
    wanted = np.maximum(likely / likely.sum(1, keepdims=True) * 2**TABLE_BITS, 16)
    shift = np.floor(np.log2(wanted)).astype(np.int64) - 4
    code = np.rint(wanted / 2.0**shift).astype(np.int64) - 16 + 16 * shift
    tables: NDArray[np.uint8] = code.astype(np.uint8)  # 32 << e is 16 << (e + 1), as it should
    return tables


def named(arrays: Arrays, part: str) -> dict[str, NDArray[Any]]:
    """Those of ``arrays`` whose names begin with ``part`` and a dot, by what is behind it."""
    start = f"{part}."
    return {
        name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)
    }


def widened(tokens: NDArray[np.uint8]) -> Tokens:
    """Tokens (..., C, h·w) as the models read them."""
    known = np.zeros((*tokens.shape[:-1], tokens.shape[-1] + 1))
    known[..., :-1] = tokens
    return known


class ChannelModel(SymbolModel):
    """One distribution for each channel, whatever is around: order 0.

    Args:
        tables: (C, tokens).
    """

    name = "categorical"

    def __init__(self, shape: Shape, alphabet: int, tables: NDArray[np.uint8]) -> None:
        super().__init__(shape, alphabet, tables)
        channels, height, width = shape
        if len(tables) != channels:
            raise CodecError(f"expected {channels} tables, got {len(tables)}")
        at_once = max(1, STEP_SYMBOLS // (height * width))
        self.steps = [
            Step(slice(first, min(first + at_once, channels)), slice(0, height * width))
            for first in range(0, channels, at_once)
        ]

    @property
    def order(self) -> NDArray[np.intp]:
        """Row-major."""
        return np.arange(self.shape[1] * self.shape[2])

    def rows(self, number: int, tokens: Tokens) -> NDArray[np.intp]:
        """That of its channel."""
        channels = self.steps[number].channels
        return np.repeat(np.arange(channels.start, channels.stop), self.shape[1] * self.shape[2])

    @classmethod
    def fit(cls, symbols: Symbols, alphabet: int) -> Self:
        """Count the symbols (n, C, h, w) of training carries."""
        shape, size = symbols.shape[1:], Alphabet.of(alphabet)
        tokens = size.token_of[symbols].swapaxes(0, 1).reshape(shape[0], -1)
        counts = [np.bincount(channel, minlength=len(size.first)) for channel in tokens]
        return cls(shape, alphabet, to_tables(np.stack(counts)))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Shape and tables."""
        return {"shape": np.array([*self.shape, self.alphabet], np.int32), "tables": self.tables}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Make it again; CodecError if the arrays do not fit each other."""
        *shape, alphabet = arrays["shape"].tolist()
        return cls((shape[0], shape[1], shape[2]), alphabet, arrays["tables"])
