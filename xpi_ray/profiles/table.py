"""What each block costs on one machine, as measured.

measure ─► Profile ─► bundle ─► pace (budget), policies, simulation
"""

from pydantic import Field

from xpi_ray.config import Frozen


class Profile(Frozen):
    """Block times of one network on one kind of machine."""

    machine: str
    """What was measured, for people: processor and software."""
    threads: int = Field(ge=1)
    """Threads that one image's blocks ran on."""
    block_ms: tuple[float, ...] = Field(min_length=1)
    """Median time of blocks 1..N for one image, milliseconds."""
    encode_ms: float = Field(ge=0)
    """Median time to encode one carry, mean over partitions."""
    decode_ms: float = Field(ge=0)
    """Likewise, to decode it."""
