"""From a carry to a frame's payload and back.

    carry ─► quantizer ─► coder ─► payload ══ link ══► coder ─► quantizer ─► carry
    image ─────────────► coder ─► payload ══ link ══► coder ─────────────► image

A plan's level is an index into ``LADDER``; at partition 0 the image goes, exact at every level.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.coders import Lz4Coder
from xpi_ray.compression.quantizer import MinMaxQuantizer, Quantized
from xpi_ray.errors import CodecError

Shape = tuple[int, int, int]
RANGE = struct.Struct("<ff")  # minimum and maximum, before the coded symbols


class Codec(Protocol):
    """Turns what crosses the link into bytes."""

    @property
    def name(self) -> str:
        """Short, for reports: ``minmax8-lz4``."""
        ...

    def encode(self, carry: NDArray[Any]) -> bytes:
        """Return the payload of one carry (C, h, w).

        Raises:
            CodecError: The carry cannot be sent, as it is not finite.
        """
        ...

    def decode(self, payload: bytes, shape: Shape) -> NDArray[Any]:
        """Return the carry, writable, of the shape (C, h, w) that its frame declares.

        Memory is bounded by the payload's size, whatever the shape says.

        Raises:
            CodecError: The payload does not decode to this shape.
        """
        ...


@dataclass(frozen=True)
class QuantizedCodec:
    """Float32 carries, with the quantiser's loss."""

    quantizer: MinMaxQuantizer
    coder: Lz4Coder

    @property
    def name(self) -> str:
        """Quantiser, bits and coder."""
        return f"minmax{self.quantizer.bits}-{self.coder.name}"

    def encode(self, carry: NDArray[np.float32]) -> bytes:
        """Return the range and the coded symbols; CodecError when a value is not finite."""
        symbols, minimum, maximum = self.quantizer.quantize(carry)
        return RANGE.pack(minimum, maximum) + self.coder.encode(symbols)

    def decode(self, payload: bytes, shape: Shape) -> NDArray[np.float32]:
        """Return the float32 carry; CodecError when the payload is not of this shape."""
        if len(payload) < RANGE.size:
            raise CodecError(
                f"expected a payload of {RANGE.size} bytes or more, got {len(payload)}"
            )
        minimum, maximum = RANGE.unpack_from(payload)
        symbols_bytes = self.quantizer.size_bytes(_count(shape))
        symbols = self.coder.decode(payload[RANGE.size :], symbols_bytes)
        return self.quantizer.dequantize(Quantized(symbols, minimum, maximum), shape)


@dataclass(frozen=True)
class ImageCodec:
    """Uint8 pixels (3, H, W), without loss."""

    coder: Lz4Coder

    @property
    def name(self) -> str:
        """What it codes, and the coder."""
        return f"image-{self.coder.name}"

    def encode(self, carry: NDArray[np.uint8]) -> bytes:
        """Return the coded pixels."""
        return self.coder.encode(carry.tobytes())

    def decode(self, payload: bytes, shape: Shape) -> NDArray[np.uint8]:
        """Return the pixels; CodecError when the payload is not of this shape."""
        pixels = self.coder.decode(payload, _count(shape))
        return np.frombuffer(pixels, np.uint8).reshape(shape).copy()


def _count(shape: Shape) -> int:
    if min(shape) < 1:
        raise CodecError(f"expected a shape of sizes above 0, got {shape}")
    return math.prod(shape)


LADDER: tuple[Codec, ...] = tuple(
    QuantizedCodec(MinMaxQuantizer(bits), Lz4Coder()) for bits in (16, 8, 4)
)
"""By plan level, the most exact first."""

IMAGE_CODEC: Codec = ImageCodec(Lz4Coder())
"""For partition 0."""
