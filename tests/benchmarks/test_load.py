import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.load import open_loop, post


class Slow(BaseHTTPRequestHandler):
    """Waits as many milliseconds as the body says, then says it again."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(int(body) / 1000)
        self.send_response(200 if int(body) else 504)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def port():
    """Of a running server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_an_open_loop_waits_for_nobody(port):
    """Requests go out at their times while earlier ones wait, and answers keep their order."""
    bodies = [post("/", wait, {}) for wait in (b"300", b"0", b"10", b"20")]
    times_s = [0.0, 0.05, 0.1, 0.15]
    replies = asyncio.run(open_loop(port, bodies, times_s))
    assert [reply.body for reply in replies] == [b"300", b"0", b"10", b"20"]
    assert [reply.status for reply in replies] == [200, 504, 200, 200]
    assert replies[0].latency_ms >= 300
    for reply, time_s in zip(replies, times_s, strict=True):
        assert time_s <= reply.sent_s < 0.29


class Impatient(Slow):
    """Closes a connection that was idle for a moment, and does not say so beforehand."""

    timeout = 0.05


def test_a_connection_that_the_server_closed_is_replaced():
    """A request that would go on an idle connection, closed meanwhile, goes on a new one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Impatient) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        bodies = [post("/", b"10", {})] * 2
        replies = asyncio.run(open_loop(server.server_address[1], bodies, [0.0, 0.5]))
        server.shutdown()
        thread.join()
    assert [reply.status for reply in replies] == [200, 200]
