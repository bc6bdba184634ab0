"""How long each block takes on this machine now: what a look at the budget compares with.

profile ─► Pace ◄─ time of each block that ran
"""

from collections.abc import Sequence

MEMORY = 0.1  # weight of the newest time; a tenth forgets a slow spell in some twenty requests
LONG_MS = 4.0  # a block that is expected to take longer is not waited for beyond its budget


class Pace:
    """A running mean for each block, which starts from the profile.

    Args:
        block_ms: Expected time of blocks 1..N, milliseconds.
    """

    def __init__(self, block_ms: Sequence[float]) -> None:
        self._block_ms = list(block_ms)

    def expected_ms(self, block: int) -> float:
        """The time that block ``block`` (1..N) is expected to take."""
        return self._block_ms[block - 1]

    def observe(self, block: int, taken_ms: float) -> None:
        """Learn from one run of block ``block``."""
        self._block_ms[block - 1] = renewed(self._block_ms[block - 1], taken_ms)


def renewed(expected_ms: float, taken_ms: float) -> float:
    """What is expected of a block after one more run of it."""
    return expected_ms + MEMORY * (taken_ms - expected_ms)


def is_long(expected_ms: float) -> bool:
    """Whether a block takes so long that the edge runs it, and what follows, beside its loop."""
    return expected_ms > LONG_MS
