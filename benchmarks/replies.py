"""What came of a run's requests, as columns: from raw records to a row's figures.

    load generator's records ─► Replies ─► during(phase) ─► facts ─► rows of results

A request is in time if its answer was there by its deadline, counted from when the request was
due. Latencies are of those that were answered, early or late; ``answered`` tells how many were.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import Row

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
DIGITS = 4


class Replies(NamedTuple):
    """A run's requests in the order in which they were due; one value each."""

    due_s: Floats
    """Since the run began."""
    deadline_ms: Floats
    latency_ms: Floats
    """From when it was due; infinite without an answer."""
    right: Flags
    """Whether the answer names what is on the image."""
    best_effort: Flags
    """Whether it was an exit that was neither sure nor the last."""
    exit: NDArray[np.int64]
    """That answered, 0 without an answer."""
    at_edge: Flags
    """Whether that exit ran at the edge."""
    frame_bytes: Floats
    """That crossed the link for an answer."""
    edge_ms: Floats
    """Wall time of blocks and encoding at the edge, of answers."""
    failed: Flags
    """Connections that failed, and requests that nobody answered at all."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the load generator's records."""
        return cls.of([json.loads(line) for line in path.read_text().splitlines()])

    @classmethod
    def of(cls, records: Sequence[dict[str, Any]]) -> Self:
        """Take records as the load generator writes them."""
        answers = [each["answer"] for each in records]

        def told(key: str) -> Floats:
            return np.array([float(answer.get(key, 0)) for answer in answers])

        def stage(key: str) -> Floats:
            return np.array([answer.get("stages", {}).get(key, 0.0) for answer in answers])

        latency_ms = [
            1000 * (each["done_s"] - each["due_s"]) if each["answer"] else np.inf
            for each in records
        ]
        return cls(
            due_s=np.array([each["due_s"] for each in records], np.float64),
            deadline_ms=np.array([each["deadline_ms"] for each in records], np.float64),
            latency_ms=np.array(latency_ms, np.float64),
            right=np.array(
                [each["answer"].get("label") == each["label"] for each in records], bool
            ),
            best_effort=np.array([a.get("status") == "best_effort" for a in answers], bool),
            exit=told("exit").astype(np.int64),
            at_edge=np.array([answer.get("tier") == "edge" for answer in answers], bool),
            frame_bytes=told("frame_bytes"),
            edge_ms=stage("edge_ms") + stage("encode_ms"),
            failed=np.array(
                [each["outcome"] in ("connection_error", "timeout") for each in records], bool
            ),
        )

    @property
    def answered(self) -> Flags:
        """Whether there was an answer, however late."""
        return self.exit > 0

    @property
    def in_time(self) -> Flags:
        """Whether there was one by the deadline."""
        return self.answered & (self.latency_ms <= self.deadline_ms)

    def where(self, chosen: Flags) -> Self:
        """Some of the requests."""
        return type(self)._make(column[chosen] for column in self)

    def during(self, from_s: float, until_s: float) -> Self:
        """Those that were due in a stretch of time."""
        return self.where((self.due_s >= from_s) & (self.due_s < until_s))

    def facts(self) -> Row:
        """The figures of a row; shares of nothing are 0."""
        in_time, answered = self.in_time, self.answered
        p50_ms, p95_ms = (
            np.percentile(self.latency_ms[answered], [50, 95]) if answered.any() else (0.0, 0.0)
        )
        return {
            "requests": self.due_s.size,
            "answered": _mean(answered),
            "deadline_satisfaction": _mean(in_time),
            "accuracy": _mean(self.right[in_time]),
            "right_in_time": _mean(self.right & in_time),
            "best_effort_share": _mean(self.best_effort),
            "p50_ms": round(float(p50_ms), 2),
            "p95_ms": round(float(p95_ms), 2),
            "mean_exit": _mean(self.exit[answered]),
            "at_edge": _mean(self.at_edge),
            "crossed": _mean(self.frame_bytes > 0),
            "frame_bytes": round(_mean(self.frame_bytes), 1),
            "edge_ms": round(_mean(self.edge_ms), 2),
            "failed": int(self.failed.sum()),
        }


def _mean(values: NDArray[Any]) -> float:
    return round(float(values.mean()), DIGITS) if values.size else 0.0
