"""Range coding of a carry's symbols, by a model that both ends have from the bundle.

    symbols ─► tokens ─► for each step: rows of the model's tables ─► constriction ─► bytes

A range coder (Martin, 1979; here that of the package ``constriction``) spends what the model's
probabilities say, and about a byte on the whole: it ends with the fewest bytes that tell its last
interval, and the decoder takes what is missing for zeros.
"""

from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.coders import Shape, Symbols, symbol_type
from xpi_ray.compression.symbol_model import SymbolModel, frequencies, widened
from xpi_ray.errors import CodecError

WORD = np.dtype(">u4")  # the most significant byte first, so that bytes at the end may be missing
STATE_BITS = 64
LOSS = 0.01  # of the coder's precision, at most
MOST_BYTES_OVER = 9  # that an encoder writes beyond what symbols take

_FAMILY = constriction.stream.model.Categorical(perfect=False)  # quick, and the same on both ends
_uniform = constriction.stream.model.Uniform


class RangeCoder:
    """Codes carries of the one shape and alphabet that its model knows.

    Bytes that were damaged may decode to other symbols: it is the frame's checksum that tells.
    """

    def __init__(self, model: SymbolModel) -> None:
        self._model = model
        self._tables = frequencies(model.tables).astype(np.float32)  # exact, as their sums
        self._bits = bits_in(self._tables)
        self._widest = int(model.symbols.plain_bits.max())

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name

    def encode(self, symbols: Symbols, alphabet: int) -> bytes:
        """Return the bytes; CodecError for another shape or alphabet than the model's."""
        self._check(symbols.shape, alphabet)
        if symbols.max() >= alphabet:
            raise CodecError(f"expected symbols below {alphabet}, got {symbols.max()}")
        model = self._model
        flat = symbols.reshape(len(symbols), -1)[:, model.order]
        tokens = model.symbols.token_of[flat]
        known, coded = widened(tokens), tokens.astype(np.int32)
        encoder = constriction.stream.queue.RangeEncoder()
        for number, step in enumerate(model.steps):
            here = coded[step.channels, step.positions].ravel()
            encoder.encode(here, _FAMILY, self._tables.take(model.rows(number, known), axis=0))
        for bits, mask in self._plain_places(tokens):
            rest = flat[mask] - model.symbols.first[tokens[mask]]
            encoder.encode(rest, _uniform(2**bits))
        return shortest(encoder)

    def decode(self, data: bytes, shape: Shape, alphabet: int) -> Symbols:
        """Return the symbols; CodecError when ``data`` are bytes that no symbols make."""
        self._check(shape, alphabet)
        try:
            flat, bits = self._decode(decoder_of(data))
        except AssertionError as err:  # constriction's own, for words that no encoder writes
            raise CodecError(f"expected range-coded symbols: {err}") from err
        if flat.max() >= alphabet:
            raise CodecError(f"expected symbols below {alphabet}, got {flat.max()}")
        check_size(data, bits)
        symbols = np.empty(flat.shape, symbol_type(alphabet))
        symbols[:, self._model.order] = flat
        return symbols.reshape(shape)

    def _decode(self, decoder: Any) -> tuple[NDArray[np.int32], float]:  # noqa: ANN401 (untyped)
        """The symbols (C, h·w), in the model's order of positions, and the bits that they take."""
        model = self._model
        channels, height, width = model.shape
        known, taken = np.zeros((channels, height * width + 1)), 0.0
        for number, step in enumerate(model.steps):
            rows = model.rows(number, known)
            here = decoder.decode(_FAMILY, self._tables.take(rows, axis=0))
            taken += float(self._bits.take(rows * self._bits.shape[1] + here).sum())
            part = known[step.channels, step.positions]
            part[...] = here.reshape(part.shape)
        tokens = known[:, :-1].astype(np.uint8)
        flat = model.symbols.first[tokens]
        for bits, mask in self._plain_places(tokens):
            flat[mask] += decoder.decode(_uniform(2**bits), int(mask.sum()))
            taken += bits * int(mask.sum())
        return flat, taken

    def _check(self, shape: tuple[int, ...], alphabet: int) -> None:
        model = self._model
        if shape != model.shape or alphabet != model.alphabet:
            raise CodecError(
                f"expected {model.alphabet} symbols in shape {model.shape}, as the model was "
                f"learnt, got {alphabet} in {shape}"
            )

    def _plain_places(self, tokens: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Where tokens have plain bits behind them, by how many."""
        plain_bits = self._model.symbols.plain_bits[tokens] if self._widest else tokens
        for bits in range(1, self._widest + 1):
            mask = plain_bits == bits
            if mask.any():
                yield bits, mask


def bits_in(tables: NDArray[np.float32]) -> NDArray[np.float64]:
    """What each token of each table (rows, tokens) takes."""
    bits: NDArray[np.float64] = np.log2(tables.sum(1, keepdims=True) / tables.astype(np.float64))
    return bits


def check_size(data: bytes, bits: float) -> None:
    """CodecError if ``data`` hold more than symbols that take so many bits.

    They may be fewer by any number, as zeros at the end are left out.
    """
    if len(data) > (1 + LOSS) * bits / 8 + MOST_BYTES_OVER:
        raise CodecError(
            f"expected symbols that end where {len(data)} bytes do, got some of {bits / 8:.0f}"
        )


def decoder_of(data: bytes) -> Any:  # noqa: ANN401 (untyped package)
    """A ``RangeDecoder`` of what ``shortest`` returned, or of any other bytes."""
    whole = data + bytes(-len(data) % WORD.itemsize)
    return constriction.stream.queue.RangeDecoder(np.frombuffer(whole, WORD).astype(np.uint32))


def shortest(encoder: Any) -> bytes:  # noqa: ANN401 (untyped package)
    """The fewest bytes that name a number in a ``RangeEncoder``'s interval."""
    words: NDArray[np.uint32] = encoder.get_compressed()
    settled, (lower, width) = encoder.pos()
    if lower + width > 2**STATE_BITS:  # the interval wraps, as a carry is pending
        return words.astype(WORD).tobytes()
    start = words[:settled].astype(WORD).tobytes()
    for count in range(STATE_BITS // 8):
        shift = STATE_BITS - 8 * count
        number = int(-(-lower >> shift))  # rounded up
        if number << shift < lower + width:
            return start + number.to_bytes(count)
    return words.astype(WORD).tobytes()
