"""What is kept of each answered request, and where it waits for a reader.

router ─ RequestRecord ─► RecordBuffer ─ drain ─► scheduler, benchmarks
"""

from collections import deque
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """The facts of one request, as plain data. Stages that did not run took 0 ms.

    Of a request that no exit answered only time, plan and link are told. Where the edge goes on
    while a frame is in flight, its blocks behind the partition are told if they answered.
    """

    request_id: str
    model: str
    slo_class: str
    deadline_ms: float
    """The budget given."""
    status: str
    """``complete``, ``best_effort``, ``missed`` (no exit in time, or none that may answer),
    ``overloaded`` or ``unavailable``."""
    exit: int = 0
    """The exit that answered, 1..N; 0 when none did."""
    tier: str = ""
    """Where that exit ran: ``edge`` or ``cloud``; empty when none did."""
    entropy: float = 1.0
    """Normalised entropy of that exit, 0 (sure) to 1 (no idea)."""
    plan_version: int
    partition: int
    """p, 0..N: blocks 1..p were to run at the edge."""
    level: int
    """Rung of the codec ladder, 0 the most exact."""
    frame_bytes: int = 0
    """Size of what crossed the link; 0 when nothing did."""
    edge_blocks: int = 0
    """Number of blocks that ran at the edge, those without an exit too."""
    cloud_blocks: int = 0
    """Likewise in the cloud."""
    cloud_from: int = 0
    """Blocks that the cloud left out, as a carry from behind them crossed; 0 for an image."""
    decode_image_ms: float = 0.0
    edge_wait_ms: float = 0.0
    """Hop and queue before the edge began."""
    edge_ms: float = 0.0
    """Blocks at the edge."""
    encode_ms: float = 0.0
    """Carry to frame."""
    link_ms: float = 0.0
    """The cloud call less the cloud's own stages."""
    cloud_wait_ms: float = 0.0
    """Queue before the cloud began, and waiting within its batches."""
    decode_ms: float = 0.0
    """Frame to carry."""
    cloud_ms: float = 0.0
    """Blocks in the cloud."""
    link_bps: float = 0.0
    """What the router believes the link to carry, after this crossing; 0 when nothing was sent."""
    link_spread: float = 0.0
    """How uncertain that is: standard deviation of its natural logarithm."""
    round_trip_ms: float = 0.0
    """What a frame without size takes there and back."""
    total_ms: float
    """From arrival at the router to the answer."""
    budget_left_ms: float
    """Negative when the answer came late."""

    def to_dict(self) -> dict[str, str | int | float]:
        """The fields by name, ready for JSON."""
        return asdict(self)


class RecordBuffer:
    """Keeps the latest records until they are drained; for one event loop, without locks.

    Args:
        capacity: Most records kept; beyond it the oldest is dropped.
    """

    def __init__(self, capacity: int) -> None:
        self._records: deque[RequestRecord] = deque(maxlen=capacity)
        self.dropped = 0
        """Records that were dropped unread, ever."""

    def add(self, record: RequestRecord) -> None:
        """Keep one more record."""
        if len(self._records) == self._records.maxlen:
            self.dropped += 1
        self._records.append(record)

    def drain(self) -> list[RequestRecord]:
        """Hand over all records, oldest first, and forget them."""
        drained = list(self._records)
        self._records.clear()
        return drained
