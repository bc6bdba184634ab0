"""From a carry to bytes and back by a quantiser and a coder that know nothing of the network.

    carry ─► quantizer ─► coder ─► payload ══ link ══► coder ─► quantizer ─► carry

What other systems send; benchmarks compare the bundle's ladder with it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.coders import Coder, Shape
from xpi_ray.compression.quantizer import MinMaxQuantizer, Quantized
from xpi_ray.errors import CodecError

ENDS = np.dtype("<f4")  # of the ranges, before the coded symbols


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
        return ranges.astype(ENDS).tobytes() + self.coder.encode(symbols, self.quantizer.alphabet)

    def decode(self, payload: bytes, shape: Shape) -> NDArray[np.float32]:
        """Return the float32 carry; CodecError when the payload is not of this shape."""
        count = shape[0] if self.quantizer.per_channel else 1
        ranges_bytes = 2 * ENDS.itemsize * count
        if len(payload) < ranges_bytes or count < 1:
            raise CodecError(
                f"expected a payload of {ranges_bytes} bytes or more, got {len(payload)}"
            )
        ranges = np.frombuffer(payload, ENDS, 2 * count).astype(np.float32).reshape(count, 2)
        symbols = self.coder.decode(payload[ranges_bytes:], shape, self.quantizer.alphabet)
        return self.quantizer.dequantize(Quantized(symbols, ranges))
