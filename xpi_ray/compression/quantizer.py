"""Uniform quantisation between a tensor's own minimum and maximum, or those of each channel.

    carry (float32) ─► quantize ─► Quantized(symbols, ranges) ─► coder ─► frame

SAC-d co-inference, equation 4: x̄ = round((c − 1)(x − min) / (max − min)), with c = 2^bits levels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.coders import Symbols, symbol_type
from xpi_ray.errors import CodecError

BITS = (2, 3, 4, 5, 6, 7, 8, 12, 16)


class Quantized(NamedTuple):
    """A tensor as symbols, and the ranges that they divide."""

    symbols: Symbols
    """Of the tensor's shape, row-major, each below 2^bits."""
    ranges: NDArray[np.float32]
    """What the lowest and the highest symbol stand for: (1, 2), or (C, 2) per channel."""


class MinMaxQuantizer:
    """Divides a range into 2^bits levels; the error is at most half a level.

    Args:
        bits: Of one symbol: 2 to 8, 12 or 16.
        per_channel: Every index of the first axis has a range of its own.

    Raises:
        CodecError: ``bits`` is none of these.
    """

    def __init__(self, bits: int, *, per_channel: bool = False) -> None:
        if bits not in BITS:
            raise CodecError(f"expected 2 to 8, 12 or 16 bits to a symbol, got {bits}")
        self.bits = bits
        self.per_channel = per_channel
        self.alphabet = 2**bits

    @property
    def name(self) -> str:
        """Kind and bits: ``minmax8``, ``minmax8-channels``."""
        return f"minmax{self.bits}" + ("-channels" if self.per_channel else "")

    def quantize(self, values: NDArray[np.float32]) -> Quantized:
        """Quantise a tensor of any shape and memory order, empty and constant ones too.

        Raises:
            CodecError: A value is not finite.
        """
        count = len(values) if self.per_channel else 1
        if not values.size:
            symbols = np.zeros(values.shape, symbol_type(self.alphabet))
            return Quantized(symbols, np.zeros((count, 2), np.float32))
        rows = values.reshape(count, -1)
        ranges = np.stack([rows.min(1), rows.max(1)], axis=1)
        if not np.isfinite(ranges).all():
            raise CodecError("expected finite values to quantise, got NaN or infinity")
        minimum, spread = _divided(ranges)
        # All in float64: float32 would overflow and round.
        scale = np.divide(self.alphabet - 1, spread, out=np.zeros_like(spread), where=spread > 0)
        scaled = rows.astype(np.float64)
        scaled -= minimum
        scaled *= scale
        symbols = np.rint(scaled, out=scaled).astype(symbol_type(self.alphabet))
        return Quantized(symbols.reshape(values.shape), ranges)

    def dequantize(self, quantized: Quantized) -> NDArray[np.float32]:
        """Return the tensor, writable and row-major, that the symbols stand for.

        Raises:
            CodecError: The ranges are too few or too many for the symbols, or not such.
        """
        symbols, ranges = quantized
        expected = (len(symbols) if self.per_channel else 1, 2)
        if ranges.shape != expected:
            raise CodecError(f"expected ranges of shape {expected}, got {ranges.shape}")
        if not (np.isfinite(ranges).all() and (ranges[:, 0] <= ranges[:, 1]).all()):
            raise CodecError(f"expected finite ranges, lower ends first, got {ranges.tolist()}")
        if not symbols.size:
            return np.empty(symbols.shape, np.float32)
        minimum, spread = _divided(ranges)
        values = symbols.reshape(len(ranges), -1).astype(np.float64)
        values *= spread / (self.alphabet - 1)
        values += minimum
        return values.astype(np.float32).reshape(symbols.shape)


def _divided(ranges: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Minima and spreads, a column each (r, 1)."""
    exact = ranges.astype(np.float64)
    return exact[:, :1], exact[:, 1:] - exact[:, :1]
