"""What Prometheus sees of the requests: exits, tiers, statuses, bytes, latency, missed deadlines.

RequestRecord ─► Metrics.count ─► the node's metrics endpoint, names with Ray's prefix ``ray_``
"""

from ray.serve import metrics

from xpi_ray.telemetry.records import RequestRecord

LATENCY_BUCKETS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 60_000]


class Metrics:
    """Counters of one router replica."""

    def __init__(self) -> None:
        self._requests = metrics.Counter(
            "xpi_requests_total",
            "Requests by how they ended.",
            tag_keys=("status", "slo_class"),
        )
        self._exits = metrics.Counter(
            "xpi_exits_total", "Answers by exit and tier.", tag_keys=("exit", "tier")
        )
        self._missed = metrics.Counter(
            "xpi_missed_deadlines_total", "Answers that came late, or not at all for lack of time."
        )
        self._frame_bytes = metrics.Counter(
            "xpi_frame_bytes_total", "Bytes of frames sent to the cloud."
        )
        self._latency_ms = metrics.Histogram(
            "xpi_latency_ms",
            "Time from a request's arrival at the router to its answer.",
            boundaries=LATENCY_BUCKETS_MS,
        )

    def count(self, record: RequestRecord) -> None:
        """Take in one request."""
        self._requests.inc(tags={"status": record.status, "slo_class": record.slo_class})
        if record.exit:
            self._exits.inc(tags={"exit": str(record.exit), "tier": record.tier})
            self._latency_ms.observe(record.total_ms)
        if record.budget_left_ms < 0 or record.status == "missed":
            self._missed.inc()
        if record.frame_bytes:
            self._frame_bytes.inc(record.frame_bytes)
