"""A small served model, and answers of it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from xpi_ray.api.handlers import Handlers, HttpReply
from xpi_ray.api.problem import problem
from xpi_ray.api.schema import ModelFacts
from xpi_ray.errors import RequestError
from xpi_ray.inference.answer import Answer, ExitAnswer, Stages, Status, Tier


@pytest.fixture(scope="session")
def facts() -> ModelFacts:
    """Three classes, one of them outside ASCII; images higher than wide."""
    return ModelFacts(
        name="toy",
        version="7",
        labels=("cat", "dog", "pingüino"),
        image_shape=(3, 5, 4),
        num_blocks=2,
    )


@pytest.fixture(scope="session")
def handlers(facts: ModelFacts) -> Handlers:
    """Default deadline 1000 ms, at most 5000 ms."""
    return Handlers(facts, default_deadline_ms=1000.0, maximum_deadline_ms=5000.0)


@pytest.fixture(scope="session")
def make_answer() -> Callable[..., Answer]:
    """Makes an answer of two exits, the last with the given logits."""

    def make(logits: list[float], status: Status = Status.COMPLETE, left_ms: float = 12.3456):
        return Answer(
            exits=[
                ExitAnswer(1, Tier.EDGE, np.array([1, 0, 0], np.float32), 0.91234567),
                ExitAnswer(2, Tier.CLOUD, np.array(logits, np.float32), 0.1),
            ],
            status=status,
            partition=1,
            level=3,
            plan_version=17,
            frame_bytes=420,
            deadline_ms=100.0,
            budget_left_ms=left_ms,
            stages=Stages(edge_ms=1.23456, total_ms=9.0),
        )

    return make


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[str]]:
    """Runs a real HTTP server that answers by a function of path, query, headers and body."""

    @contextmanager
    def serve(respond: Callable[[str, str, dict[str, str], bytes], HttpReply]) -> Iterator[str]:
        class Endpoint(BaseHTTPRequestHandler):
            def do_POST(self):
                path, _, query = self.path.partition("?")
                data = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                try:
                    reply = respond(path, query, headers, data)
                except RequestError as err:
                    reply = problem(err, path)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *args):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as http_server:
            thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
            thread.start()
            yield f"http://127.0.0.1:{http_server.server_port}"
            http_server.shutdown()
            thread.join()

    return serve
