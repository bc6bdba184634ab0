"""From a carry to bytes and back by means that know nothing of the network.

    carry ─► quantizer ─► coder ─► payload ══ link ══► coder ─► quantizer ─► carry

What other systems send, some of them floats as they are; benchmarks compare the bundle's ladder
with it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.coders import Coder, Shape, count_of
from xpi_ray.compression.quantizer import MinMaxQuantizer, Quantized
from xpi_ray.errors import CodecError

FLOAT = np.dtype("<f4")  # of ranges before the coded symbols, and of carries that are sent as such


@dataclass(frozen=True)
class QuantizedCodec:
    """Float32 carries, with the quantiser's loss."""

    quantizer: MinMaxQuantizer
    coder: Coder

    @property
    def name(self) -> str:
        """Quantiser and coder."""
        return f"{self.quantizer.name}-{self.coder.name}"

    def encode(self, carry: NDArray[np.float32]) -> bytes:
        """Return the ranges and the coded symbols; CodecError when a value is not finite."""
        symbols, ranges = self.quantizer.quantize(carry)
        return ranges.astype(FLOAT).tobytes() + self.coder.encode(symbols, self.quantizer.alphabet)

    def decode(self, payload: bytes, shape: Shape) -> NDArray[np.float32]:
        """Return the float32 carry; CodecError when the payload is not of this shape."""
        count = shape[0] if self.quantizer.per_channel else 1
        ranges_bytes = 2 * FLOAT.itemsize * count
        if len(payload) < ranges_bytes or count < 1:
            raise CodecError(
                f"expected a payload of {ranges_bytes} bytes or more, got {len(payload)}"
            )
        ranges = np.frombuffer(payload, FLOAT, 2 * count).astype(np.float32).reshape(count, 2)
        symbols = self.coder.decode(payload[ranges_bytes:], shape, self.quantizer.alphabet)
        return self.quantizer.dequantize(Quantized(symbols, ranges))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Nothing was learned."""
        return {}


class Float32Codec:
    """Little-endian float32 values as they are, row-major."""

    def encode(self, carry: NDArray[np.float32]) -> bytes:
        """Return 4 bytes a value; CodecError when one is not finite."""
        _check_finite(carry)
        return carry.astype(FLOAT, copy=False).tobytes()

    def decode(self, payload: bytes, shape: Shape) -> NDArray[np.float32]:
        """Return the carry, writable; CodecError when it is not of this shape or not finite."""
        expected = FLOAT.itemsize * count_of(shape)
        if len(payload) != expected:
            raise CodecError(f"expected {expected} bytes for shape {shape}, got {len(payload)}")
        carry = np.frombuffer(payload, FLOAT).astype(np.float32).reshape(shape)
        _check_finite(carry)
        return carry

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Nothing was learned."""
        return {}


def _check_finite(carry: NDArray[np.float32]) -> None:
    if not np.isfinite(carry).all():
        raise CodecError("expected finite values, got NaN or infinity")
