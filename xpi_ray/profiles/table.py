"""What each block costs on one machine, as measured.

measure ─► Profile ─► bundle ─► pace (budget), policies, simulation
"""

import math
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from xpi_ray.config import Frozen

FOREIGN = (
    3.0  # times quicker or slower than profiled is more than a busy neighbour: another machine
)

Ms = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Profile(Frozen):
    """Block times of one network on one kind of machine.

    Times are of blocks within runs that go through all of them in order, as the executors do, with
    the exit's entropy: a block timed by itself finds warmer caches. PORTEND (ICPADS'23) was off
    by seven times less with partitions timed as they run than with blocks timed one by one.
    """

    BATCH_SIZES: ClassVar[tuple[int, ...]] = (1, 2, 4, 8, 16)
    """Images that go through a block together, where that was measured."""

    machine: str
    """What was measured, for people: processor and software."""
    threads: int = Field(ge=1)
    """Threads that one image's blocks ran on."""
    slowdown: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Of a stand-in for a weaker machine, the factor between its times and those measured."""
    block_ms: tuple[Ms, ...] = Field(min_length=1)
    """Median time of blocks 1..N for one image, milliseconds."""
    batch_ms: tuple[tuple[Ms, ...], ...] = ()
    """Median time of blocks 1..N for a whole batch of each size, (N, 5); empty in old bundles."""
    batch_p95_ms: tuple[tuple[Ms, ...], ...] = ()
    """What 95 in 100 runs stay below, likewise. Blocks are rarely slow all at once: the sum over a
    partition's blocks is more than 95 in 100 runs of the partition need."""
    encode_ms: Ms
    """Median time to encode one carry, over runs and partitions."""
    decode_ms: Ms
    """Likewise, to decode it."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Profile":
        for name, rows in (("batch_ms", self.batch_ms), ("batch_p95_ms", self.batch_p95_ms)):
            if len(rows) != (len(self.block_ms) if self.batch_ms else 0):
                raise ValueError(f"{name} must have a row for each of the blocks, or none")
            if any(len(row) != len(self.BATCH_SIZES) for row in rows):
                raise ValueError(f"{name} must have a time for each batch of {self.BATCH_SIZES}")
        return self

    def slowed(self, factor: float) -> "Profile":
        """A stand-in for a machine ``factor`` times weaker, which it says of itself.

        Args:
            factor: Finite and above 0; below 1 is a stronger machine.

        Raises:
            ValueError: It is not.
        """
        if not (0 < factor < math.inf):
            raise ValueError(f"expected a finite factor above 0, got {factor}")
        if factor == 1:
            return self

        def times(row: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(factor * ms for ms in row)

        return Profile(
            machine=f"{self.machine}, as if {factor:g} times weaker",
            threads=self.threads,
            slowdown=factor * self.slowdown,
            block_ms=times(self.block_ms),
            batch_ms=tuple(times(row) for row in self.batch_ms),
            batch_p95_ms=tuple(times(row) for row in self.batch_p95_ms),
            encode_ms=factor * self.encode_ms,
            decode_ms=factor * self.decode_ms,
        )

    def fitted(self, total_ms: float) -> "Profile":
        """This profile if it can be of a machine where all blocks take ``total_ms``, else slowed.

        Only a gross misfit counts (``FOREIGN``): a profile of another machine would let an executor
        refuse requests that it has the time for, and so never learn better.
        """
        ratio = total_ms / max(sum(self.block_ms), 1e-9)
        return self if 1 / FOREIGN <= ratio <= FOREIGN else self.slowed(ratio)

    def batched_ms(self, block: int, images: int) -> float:
        """Median time of a block for a batch, on a line through the nearest two measured sizes.

        Args:
            block: 1..N.
            images: In the batch, at least 1.

        Returns:
            Milliseconds for the whole batch; where no batch was measured, as long as the images
            take one by one.

        Raises:
            ValueError: There is no such block or batch.
        """
        if not (1 <= block <= len(self.block_ms)) or images < 1:
            raise ValueError(
                f"expected a block of 1..{len(self.block_ms)} and at least one image, got block "
                f"{block} and {images} images"
            )
        if not self.batch_ms:
            return images * self.block_ms[block - 1]
        points = pairwise(zip(self.BATCH_SIZES, self.batch_ms[block - 1], strict=True))
        for (fewer, before_ms), (more, after_ms) in points:
            slope_ms = (after_ms - before_ms) / (more - fewer)
            if images <= more:
                return before_ms + slope_ms * (images - fewer)
        return after_ms + max(slope_ms, 0.0) * (images - more)  # noise must not lead below zero
