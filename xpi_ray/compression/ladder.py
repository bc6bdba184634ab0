"""The levels of a bundle: for every partition codecs that were fitted to its carries.

    training carries ─► Ladder.fit ─► arrays ─► bundle ─► the same ladder at edge and cloud
    carry, partition, level ─► encode ─► segments ══ link ══► decode ─► carry
    image ─► encode_image ─► segment ══ link ══► decode_image ─► image

Level 0 is the most exact; each further one is smaller. The first five leave out one layer after
the other of the carry itself. The last two send latents instead, where the bundle has a learned
transform: both segments, then only the first. At a partition without one they are the fifth again.
"""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.carry_codec import Sent
from xpi_ray.compression.coders import Shape
from xpi_ray.compression.layered import REFINEMENTS, LayeredCodec
from xpi_ray.compression.learned import SEGMENTS, LearnedCodec
from xpi_ray.compression.symbol_model import Arrays, named
from xpi_ray.compression.transform import Transform
from xpi_ray.errors import CodecError

LAYERS = 1 + REFINEMENTS
LEVELS = LAYERS + SEGMENTS  # of a bundle that has learned ones


class Ladder:
    """Codecs by partition; a ``CarryCodec``.

    Args:
        layered: By partition, 1..N-1.
        learned: By some of these partitions, or none.
    """

    def __init__(
        self, layered: Mapping[int, LayeredCodec], learned: Mapping[int, LearnedCodec]
    ) -> None:
        self._layered, self._learned = dict(layered), dict(learned)
        self.levels = LEVELS if learned else LAYERS
        """How many there are."""

    def levels_at(self, partition: int) -> int:
        """How many differ from each other at a partition."""
        return LEVELS if partition in self._learned else LAYERS

    def arrived_level(self, segments: Sequence[bytes], partition: int, level: int) -> int:
        """The level that leading segments are worth; the coarser one where a layer is broken."""
        if level < LAYERS or partition not in self._learned:
            whole = bisect.bisect_right(self._layered[partition].ends, len(segments))
            return LAYERS - max(whole, 1)
        return LEVELS - len(segments)

    def encode(self, carry: NDArray[np.float32], partition: int, level: int) -> list[bytes]:
        """Return the segments of a carry (C, h, w); CodecError when it is not finite."""
        if level < LAYERS or partition not in self._learned:
            return self._layered[partition].encode(carry, max(LAYERS - level, 1))
        return self._learned[partition].encode(carry, LEVELS - level)

    def decode(self, segments: Sequence[bytes], partition: int, level: int) -> NDArray[np.float32]:
        """Return the carry from leading segments; CodecError when they are no such."""
        if level < LAYERS or partition not in self._learned:
            return self._layered[partition].decode(segments)
        return self._learned[partition].decode(segments)

    def at_all_levels(self, carry: NDArray[np.float32], partition: int) -> list[Sent]:
        """What is sent and what arrives, by level; quicker than one by one."""
        layered = self._layered[partition]
        segments = layered.encode(carry, LAYERS)
        carries = layered.decode_layers(segments)
        found = [(segments[:end], each) for end, each in zip(layered.ends, carries, strict=True)]
        found.reverse()
        for level in range(LAYERS, self.levels):
            segments = self.encode(carry, partition, level)
            found.append((segments, self.decode(segments, partition, level)))
        return found

    def warm_up(self, level: int) -> None:
        """Code a carry of zeros at every partition: first runs take many times longer."""
        for partition, codec in self._layered.items():
            segments = self.encode(np.zeros(codec.shape, np.float32), partition, level)
            self.decode(segments, partition, level)

    @classmethod
    def fit(
        cls,
        carries: Mapping[int, NDArray[np.float32]],
        transforms: Mapping[int, Transform] | None = None,
    ) -> Self:
        """Learn from training carries.

        Args:
            carries: (n, C, h, w) by partition.
            transforms: Trained, by some of these partitions; others have no learned levels.
        """
        return cls(
            {partition: LayeredCodec.fit(each) for partition, each in carries.items()},
            {
                partition: LearnedCodec.fit(transform, carries[partition])
                for partition, transform in (transforms or {}).items()
            },
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs."""
        parts: dict[str, LayeredCodec | LearnedCodec] = {
            **{f"block{partition}": codec for partition, codec in self._layered.items()},
            **{f"learned{partition}": codec for partition, codec in self._learned.items()},
        }
        return {
            f"{part}.{name}": array
            for part, codec in parts.items()
            for name, array in codec.to_arrays().items()
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, shapes: Mapping[int, Shape]) -> Self:
        """Make it again, for the carries of a network.

        Args:
            arrays: See ``to_arrays``.
            shapes: (C, h, w) of the carry after each block but the last.

        Raises:
            CodecError: The arrays do not fit each other or these carries.
            KeyError: One is missing.
            RuntimeError: Those of a transform are of another form.
        """
        layered, learned = {}, {}
        for partition, shape in shapes.items():
            codec = LayeredCodec.from_arrays(named(arrays, f"block{partition}"))
            if codec.shape != shape or codec.layers != LAYERS:
                raise CodecError(
                    f"expected {LAYERS} layers of {shape} after block {partition}, got "
                    f"{codec.layers} of {codec.shape}"
                )
            layered[partition] = codec
            if own := named(arrays, f"learned{partition}"):
                learned[partition] = LearnedCodec.from_arrays(own, shape)
        return cls(layered, learned)
