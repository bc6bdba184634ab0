"""A codec of one level: what other systems send, after every block or after one.

    carry ─► PayloadCodec of its partition ─► one segment ══ link ══► the same codec ─► carry

* ``FLOAT32``: values as they are. As far as we know, Edgent, Neurosurgeon (ASPLOS'17), BranchyNet
  (ICPR'16) and EdgeML (IoTDI'21) compress nothing. EdgeML's code writes JSON lists, several times
  as large; here it gets the smaller form.
* ``SHUFFLED_LZ4``: SPINN (MobiCom'20), section 4, as we remember it: linear quantisation to 8 bits
  between the carry's own minimum and maximum, bits shuffled so that those of one weight lie side by
  side, LZ4. Chosen by us: bits are shuffled over the whole carry, and the two ends of the range are
  sent as float32.
* ``deepcod.DeepCodCodec``: learned for the partition where it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.carry_codec import Sent
from xpi_ray.compression.codec import Float32Codec, QuantizedCodec
from xpi_ray.compression.coders import Lz4Coder, Shape
from xpi_ray.compression.quantizer import MinMaxQuantizer
from xpi_ray.errors import CodecError

FLOAT32 = Float32Codec()
SHUFFLED_LZ4 = QuantizedCodec(MinMaxQuantizer(8), Lz4Coder(shuffled=True))


class PayloadCodec(Protocol):
    """Codes single carries; calls from several threads do no harm."""

    def encode(self, carry: NDArray[np.float32]) -> bytes:
        """Return the payload of a carry (C, h, w); CodecError when it is not finite."""
        ...

    def decode(self, payload: bytes, shape: Shape) -> NDArray[np.float32]:
        """Return the carry; CodecError when the payload is none of this shape."""
        ...

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What it learned, by name; empty if nothing."""
        ...


class OneLevel:
    """Level 0 and no other.

    Args:
        codecs: By partition; where one is missing, no carry can be sent.
        shapes: (C, h, w) of the carry by partition, 1..N-1.
    """

    levels = 1

    def __init__(self, codecs: Mapping[int, PayloadCodec], shapes: Mapping[int, Shape]) -> None:
        self._codecs, self._shapes = dict(codecs), dict(shapes)

    def levels_at(self, partition: int) -> int:
        """1, or 0 where no carry can be sent."""
        return int(partition in self._codecs)

    def arrived_level(self, segments: Sequence[bytes], partition: int, level: int) -> int:
        """0: there is one segment, which arrives whole or not at all."""
        del segments, partition, level
        return 0

    def encode(self, carry: NDArray[np.float32], partition: int, level: int) -> list[bytes]:
        """Return the segment of a carry (C, h, w).

        Raises:
            CodecError: The carry is not finite, or none can be sent at this partition.
        """
        del level
        return [self._at(partition).encode(carry)]

    def decode(self, segments: Sequence[bytes], partition: int, level: int) -> NDArray[np.float32]:
        """Return the carry from its segment.

        Raises:
            CodecError: It is no such segment, or there are several.
        """
        del level
        codec = self._at(partition)
        if len(segments) != 1:
            raise CodecError(f"expected 1 segment, got {len(segments)}")
        return codec.decode(segments[0], self._shapes[partition])

    def at_all_levels(self, carry: NDArray[np.float32], partition: int) -> list[Sent]:
        """What is sent and what arrives; float32 as it is where no carry can be sent."""
        codec = self._codecs.get(partition, FLOAT32)
        payload = codec.encode(carry)
        return [([payload], codec.decode(payload, self._shapes[partition]))]

    def warm_up(self, level: int) -> None:
        """Code a carry of zeros at every partition where one can be sent."""
        for partition in self._codecs:
            zeros = np.zeros(self._shapes[partition], np.float32)
            self.decode(self.encode(zeros, partition, level), partition, level)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What its codecs learned, by partition."""
        return {
            f"block{partition}.{name}": array
            for partition, codec in self._codecs.items()
            for name, array in codec.to_arrays().items()
        }

    def _at(self, partition: int) -> PayloadCodec:
        codec = self._codecs.get(partition)
        if codec is None:
            known = ", ".join(map(str, sorted(self._codecs))) or "none"
            raise CodecError(
                f"this bundle's codec sends carries after block {known} only, not after block "
                f"{partition}; go by a plan with that partition"
            )
        return codec
