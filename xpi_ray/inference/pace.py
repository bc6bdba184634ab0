"""How long each block takes on this machine now: what a look at the budget compares with.

profile ─► Pace ◄─ time of each block that ran, and of each carry that was encoded
"""

from collections.abc import Sequence

MEMORY = 0.1  # weight of the newest time; a tenth forgets a slow spell in some twenty requests
LONG_MS = 4.0  # a step that is expected to take longer is not waited for beyond its budget
ENCODING = 0  # stands in a block's place for the encoding of a carry


class Pace:
    """A running mean for each block, which starts from the profile.

    Args:
        block_ms: Expected time of blocks 1..N, milliseconds.
        encode_ms: To encode a carry.
    """

    def __init__(self, block_ms: Sequence[float], encode_ms: float = 0.0) -> None:
        self._step_ms = [encode_ms, *block_ms]

    def expected_ms(self, step: int) -> float:
        """The time that a step, a block (1..N) or ``ENCODING``, is expected to take."""
        return self._step_ms[step]

    def observe(self, step: int, taken_ms: float) -> None:
        """Learn from one run of it."""
        self._step_ms[step] = renewed(self._step_ms[step], taken_ms)


def renewed(expected_ms: float, taken_ms: float) -> float:
    """What is expected of a step after one more run of it."""
    return expected_ms + MEMORY * (taken_ms - expected_ms)


def is_long(expected_ms: float) -> bool:
    """Whether a step takes so long that the edge does it, and what follows, beside its loop."""
    return expected_ms > LONG_MS
