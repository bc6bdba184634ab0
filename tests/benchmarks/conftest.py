"""What tests of the comparison share: records as the load generator writes them, runs, rows."""

import json

import pytest

from benchmarks.campaign import FACTS
from benchmarks.rig import RECORDS


@pytest.fixture(scope="session")
def make_record_line():
    """Makes one request's record: due at a time, answered rightly after some milliseconds."""

    def make(due_s, latency_ms=50.0, deadline_ms=100.0, label="cat", said="cat", **answer):
        answered = latency_ms is not None
        told = {"exit": 3, "tier": "edge", "status": "complete", "frame_bytes": 0, "label": said}
        stages = {"stages": {"edge_ms": 20.0, "encode_ms": 1.0}}
        return {
            "number": 0,
            "due_s": due_s,
            "image": 7,
            "label": label,
            "deadline_ms": deadline_ms,
            "outcome": "answered" if answered else "refused",
            "http_status": 200 if answered else 504,
            "sent_s": due_s,
            "done_s": due_s + (latency_ms if answered else 5.0) / 1000,
            "answer": {**told, **stages, **answer} if answered else {},
        }

    return make


@pytest.fixture(scope="session")
def write_run():
    """Writes a run's folder as a campaign does."""

    def write(folder, lines, **changes):
        facts = {
            "system": "xpi",
            "dataset": "cifar10",
            "trace": "t",
            "seed": 0,
            "load": 0.5,
            "rate_rps": 1.0,
            "arrivals": "even",
            "warm_up_s": 2.0,
            "duration_s": 8.0,
            "trace_bps": 1_000_000,
            "edge_cores": 0.1,
            "edge_used_ms": 40.0,
            "up_bytes": 800,
            "down_bytes": 400,
            "cuts_s": [],
            "sender": {"cores": 0.01, "late_max_ms": 1.0, "late_p99_ms": 0.5},
            "took_s": 12.0,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / FACTS).write_text(json.dumps({**facts, **changes}))
        return folder

    return write


@pytest.fixture(scope="session")
def make_rows():
    """Makes rows of a comparison: two systems, two seeds, two loads."""

    def make(**changes):
        return [
            {
                "system": system,
                "dataset": "cifar10",
                "trace": "t",
                "seed": seed,
                "load": load,
                "requests": 100,
                "deadline_satisfaction": satisfaction - load / 10,
                "accuracy": 0.8 + seed / 10,
                "right_in_time": 0.7,
                "best_effort_share": 0.1,
                "at_edge": 0.5,
                "p50_ms": 40.0,
                "p95_ms": 90.0,
                "frame_bytes": 120.0,
                "edge_cpu_ms": 3.0,
                **changes,
            }
            for system, satisfaction in (("edge_only", 0.6), ("xpi", 1.0))
            for seed in (0, 1)
            for load in (0.5, 1.0)
        ]

    return make
