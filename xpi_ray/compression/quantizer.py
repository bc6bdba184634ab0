"""Uniform quantisation of one tensor between its own minimum and maximum.

    carry (float32) ─► quantize ─► Quantized(symbols, minimum, maximum) ─► coder ─► frame

SAC-d co-inference, equation 4: x̄ = round((c − 1)(x − min) / (max − min)), with c = 2^bits levels.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.errors import CodecError

BITS = (4, 8, 16)


class Quantized(NamedTuple):
    """A tensor as symbols, and the range that they divide."""

    symbols: bytes
    """Row-major: uint8, little-endian uint16, or two 4-bit symbols to a byte, high half first."""
    minimum: float
    """What symbol 0 stands for."""
    maximum: float
    """What the highest symbol stands for."""


class MinMaxQuantizer:
    """Divides a tensor's range into 2^bits levels; the error is at most half a level.

    Args:
        bits: Of one symbol: 4, 8 or 16.

    Raises:
        CodecError: ``bits`` is none of these.
    """

    def __init__(self, bits: int) -> None:
        if bits not in BITS:
            raise CodecError(f"expected 4, 8 or 16 bits to a symbol, got {bits}")
        self.bits = bits
        self._top = 2**bits - 1
        self._dtype = np.dtype("<u2" if bits == 16 else "u1")

    def size_bytes(self, count: int) -> int:
        """Size of the symbols of ``count`` values."""
        return (count * self.bits + 7) // 8

    def quantize(self, values: NDArray[np.float32]) -> Quantized:
        """Quantise a tensor of any shape and memory order, empty and constant ones too.

        Raises:
            CodecError: A value is not finite.
        """
        if not values.size:
            return Quantized(b"", 0.0, 0.0)
        minimum, maximum = float(values.min()), float(values.max())
        if not (math.isfinite(minimum) and math.isfinite(maximum)):
            raise CodecError("expected finite values to quantise, got NaN or infinity")
        spread = maximum - minimum  # and all below in float64: float32 would overflow and round
        scaled = values.ravel().astype(np.float64)
        scaled -= minimum
        scaled *= self._top / spread if spread else 0.0
        symbols = np.rint(scaled, out=scaled).astype(self._dtype)
        if self.bits == 4:
            symbols = _pack_halves(symbols)
        return Quantized(symbols.tobytes(), minimum, maximum)

    def dequantize(self, quantized: Quantized, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the tensor, writable and row-major, that the symbols stand for.

        Raises:
            CodecError: The symbols are too few or too many for ``shape``, or the range is not one.
        """
        data, minimum, maximum = quantized
        count = math.prod(shape)
        if len(data) != self.size_bytes(count):
            raise CodecError(
                f"expected {self.size_bytes(count)} bytes of {self.bits}-bit symbols for shape "
                f"{shape}, got {len(data)}"
            )
        if not (math.isfinite(minimum) and math.isfinite(maximum) and minimum <= maximum):
            raise CodecError(f"expected a finite range, lower end first, got {minimum}..{maximum}")
        symbols = np.frombuffer(data, self._dtype)
        if self.bits == 4:
            symbols = _unpack_halves(symbols)[:count]
        values = symbols.astype(np.float64)
        values *= (maximum - minimum) / self._top
        values += minimum
        return values.astype(np.float32).reshape(shape)


def _pack_halves(symbols: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two symbols to a byte; an odd one out is followed by 0."""
    packed = symbols[0::2] << np.uint8(4)
    packed[: symbols.size // 2] |= symbols[1::2]
    return packed


def _unpack_halves(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    symbols = np.empty(2 * packed.size, np.uint8)
    symbols[0::2] = packed >> 4
    symbols[1::2] = packed & 15
    return symbols
