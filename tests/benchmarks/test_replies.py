import numpy as np
import pytest

from benchmarks.replies import Replies


@pytest.fixture(scope="module")
def replies(make_record_line):
    """One in time and right, one late, one wrong from the cloud, one without an answer."""
    return Replies.of(
        [
            make_record_line(1.0),
            make_record_line(2.0, latency_ms=150.0),
            make_record_line(
                3.0, said="dog", tier="cloud", status="best_effort", frame_bytes=400, exit=9
            ),
            make_record_line(4.0, latency_ms=None),
        ]
    )


def test_a_right_answer_counts_only_if_it_is_in_time(replies):
    """Accuracy is of what was in time, and another share counts all requests."""
    facts = replies.facts()
    assert facts["requests"] == 4
    assert facts["answered"] == 0.75
    assert facts["deadline_satisfaction"] == 0.5
    assert facts["accuracy"] == 0.5
    assert facts["right_in_time"] == 0.25
    assert facts["best_effort_share"] == 0.25
    assert facts["failed"] == 0


def test_latencies_are_of_what_was_answered(replies):
    """The one without an answer has none; percentiles are of the raw values."""
    assert np.isinf(replies.latency_ms[3])
    facts = replies.facts()
    assert facts["p50_ms"] == pytest.approx(50.0)
    assert facts["p95_ms"] == pytest.approx(np.percentile([50, 150, 50], 95), abs=0.01)
    assert facts["frame_bytes"] == 100.0
    assert facts["mean_exit"] == 5.0


def test_a_stretch_of_time_is_by_when_requests_were_due(replies):
    """Its end is not in it; nothing in it gives figures all the same."""
    assert replies.during(2.0, 4.0).due_s.tolist() == [2.0, 3.0]
    nothing = replies.during(9.0, 10.0).facts()
    assert nothing["requests"] == nothing["accuracy"] == nothing["p95_ms"] == 0


def test_connections_that_failed_are_counted(make_record_line):
    """So are requests that nobody answered at all."""
    lines = [make_record_line(number, latency_ms=None) for number in range(3)]
    lines[0]["outcome"], lines[1]["outcome"] = "timeout", "connection_error"
    assert Replies.of(lines).facts()["failed"] == 2
