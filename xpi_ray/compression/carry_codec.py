"""What codes a bundle's carries for the link, whichever system they are of.

    carry, partition, level ─► encode ─► segments ══ link ══► decode ─► carry

``Ladder`` is this project's own; ``OneLevel`` is what other systems send. ``builder`` makes either
by its name. A frame may lose its last segments on the way, so these say the least.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Sent = tuple[list[bytes], NDArray[np.float32]]
"""Segments, and the carry as it arrives by them."""


class CarryCodec(Protocol):
    """Codes the carries of all partitions, 1..N-1; calls from several threads do no harm."""

    @property
    def levels(self) -> int:
        """How many there are; level 0 is the most exact."""
        ...

    def levels_at(self, partition: int) -> int:
        """How many differ from each other at a partition; 0 where no carry can be sent."""
        ...

    def arrived_level(self, segments: Sequence[bytes], partition: int, level: int) -> int:
        """The level that leading segments of a carry sent at ``level`` are worth."""
        ...

    def encode(self, carry: NDArray[np.float32], partition: int, level: int) -> list[bytes]:
        """Return the segments, one or more, of a carry (C, h, w).

        Raises:
            CodecError: The carry is not finite, or none can be sent at this partition.
        """
        ...

    def decode(self, segments: Sequence[bytes], partition: int, level: int) -> NDArray[np.float32]:
        """Return the carry (C, h, w), finite and writable, from leading segments.

        Raises:
            CodecError: They are no such segments.
        """
        ...

    def at_all_levels(self, carry: NDArray[np.float32], partition: int) -> list[Sent]:
        """What is sent and what arrives, by level, for measurements of every partition.

        Where no carry can be sent, it arrives as it is.
        """
        ...

    def warm_up(self, level: int) -> None:
        """Code a carry at every partition where one can be sent: first runs take longer."""
        ...

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that a bundle must hold to make the codec again."""
        ...
