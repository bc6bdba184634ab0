import asyncio
import json
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.load_generator import Asked, Came, LoadGenerator, punctuality, record

ROOT = Path(__file__).parents[2]
ANSWER = {"label": "cat", "exit": 2, "unknown": 1, "stages": {"edge_ms": 1.0}}


class Server(BaseHTTPRequestHandler):
    """Does as the body says: waits some milliseconds, refuses, or hangs up."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Answer."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if body == "hang up":
            self.close_connection = True
            return
        if body.isdigit():
            time.sleep(int(body) / 1000)
        reply = json.dumps({**ANSWER, "frame_bytes": len(self.path)}).encode()
        self.send_response(504 if body == "refuse" else 200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def port():
    """Of a running server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def send(port, dues_s, bodies, patience_s=5.0):
    """What comes of requests with these bodies."""
    asked = [Asked(due_s, number, "cat", 100.0) for number, due_s in enumerate(dues_s)]
    images = {number: body.encode() for number, body in enumerate(bodies)}
    generator = LoadGenerator(asked, images, port, patience_s)
    return asked, asyncio.run(generator.run(time.monotonic()))


def test_requests_go_out_when_they_are_due_whatever_waits(port):
    """A slow answer holds up no other request, and each has its own outcome."""
    asked, came = send(port, [0.0, 0.05, 0.1, 0.15], ["300", "0", "refuse", "0"])
    assert [each.outcome for each in came] == ["answered", "answered", "refused", "answered"]
    assert came[0].done_s >= 0.3
    for due, each in zip(asked, came, strict=True):
        assert due.due_s <= each.sent_s < 0.29
    assert json.loads(came[1].body)["frame_bytes"] == len("/v1/classify?deadline_ms=100.000")


def test_a_latency_counts_from_when_the_request_was_due(port):
    """One that was due long before the sender began is late by that, and the sender says so."""
    asked, came = send(port, [-2.0, 0.0], ["0", "0"], patience_s=9.0)
    assert came[0].done_s - asked[0].due_s > 2.0
    late = punctuality(asked, came)
    assert late["late_max_ms"] > 2_000
    assert late["late_p99_ms"] <= late["late_max_ms"]


def test_lost_connections_and_silence_are_outcomes(port):
    """A server that hangs up, one that never answers in time, and one that is not there."""
    _, came = send(port, [0.0, 0.0, 0.01], ["hang up", "900", "0"], patience_s=0.2)
    assert [each.outcome for each in came] == ["connection_error", "timeout", "answered"]
    _, came = send(1, [0.0], ["0"])
    assert came[0].outcome == "connection_error"


def test_a_record_keeps_what_results_are_made_of():
    """Of an answer the known keys, of a refusal only its status."""
    asked = Asked(1.0, 5, "cat", 120.0)
    kept = record(3, asked, Came("answered", 1.0, 1.1, 200, json.dumps(ANSWER).encode()))
    assert kept["answer"] == {"label": "cat", "exit": 2, "stages": {"edge_ms": 1.0}}
    assert (kept["number"], kept["image"], kept["done_s"]) == (3, 5, 1.1)
    assert record(3, asked, Came("refused", 1.0, 1.1, 504, b"not JSON"))["answer"] == {}


def test_the_program_reads_files_and_writes_records(port, tmp_path):
    """It begins when it is told to, and ends with what it took itself."""
    lines = [[0.0, 4, "cat", 100.0], [0.05, 9, "dog", 200.0]]
    (tmp_path / "asked").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with zipfile.ZipFile(tmp_path / "images", "w") as archive:
        for number in (4, 9, 11):
            archive.writestr(f"{number}.png", "0")
    words = [str(tmp_path / name) for name in ("asked", "images", "records")]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load_generator", *words, f"--port={port}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        said, _ = process.communicate(f"{time.monotonic()}\n")
    assert process.returncode == 0
    assert set(json.loads(said)) == {"cores", "late_max_ms", "late_p99_ms"}
    records = [json.loads(line) for line in (tmp_path / "records").read_text().splitlines()]
    assert [each["label"] for each in records] == ["cat", "dog"]
    assert [each["answer"]["exit"] for each in records] == [2, 2]
