"""`xpi stream` against a real HTTP server that sends a handler's events."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from xpi_ray.api.handlers import HttpReply
from xpi_ray.api.stream_command import EXAMPLES, stream
from xpi_ray.errors import RequestError, UnavailableError
from xpi_ray.inference.elastic import ElasticEnd, ElasticExit

PHOTO = Path(__file__).parents[1] / "data" / "cat.jpg"

app = typer.Typer()
app.command()(stream)


@pytest.fixture
def server(handlers, make_answer, serving) -> Iterator[str]:
    """Address of a server whose edge runs two exits; below /cut it breaks off before the end."""
    exits = make_answer([0, 5, 0]).exits
    parts = [ElasticExit(exits[0], 0.5, 4.25), ElasticExit(exits[1], 0.875, 8.5)]
    end = ElasticEnd(True, 2, 9.125)

    def respond(path, query, headers, data):
        handlers.parse_stream(headers, query, data)
        told = parts if path.startswith("/cut") else [*parts, end]
        body = b"".join(handlers.render_part(part) for part in told)
        return HttpReply(200, {"Content-Type": "text/event-stream"}, body)

    with serving(respond) as address:
        yield address


def run(*arguments):
    return CliRunner().invoke(app, [str(item) for item in arguments])


def test_people_get_a_line_for_each_exit(server):
    """Every line has the time, exit, label and how sure it is; the last says how it ended."""
    result = run(PHOTO, "--server", server)
    assert result.exit_code == 0, result.output
    first, second, end = result.stdout.splitlines()
    assert all(text in first for text in ("4.250 ms", "exit 1", "cat", "50%"))
    assert all(text in second for text in ("8.500 ms", "exit 2", "dog", "88%"))
    assert "9.125 ms  complete after block 2" in end


def test_programs_get_a_document_for_each_event(server):
    """With --json every line is the event's own message."""
    result = run(PHOTO, "--server", server + "/", "--json", "--stop-within-ms", "50")
    *exits, end = [json.loads(line) for line in result.stdout.splitlines()]
    assert [exit_["exit"] for exit_ in exits] == [1, 2]
    assert end == {"status": "complete", "blocks": 2, "elapsed_ms": 9.125}


def test_a_stream_that_breaks_off_is_an_error(server):
    """What came is printed, and that there was no end is said."""
    result = run(PHOTO, "--server", f"{server}/cut")
    assert len(result.stdout.splitlines()) == 2
    assert isinstance(result.exception, RequestError)
    assert "broke the stream off" in str(result.exception)


def test_the_servers_refusal_is_told(server):
    """Junk in an option comes back as the server's message."""
    result = run(PHOTO, "--server", server, "--stop-within-ms", "-1")
    assert isinstance(result.exception, RequestError)
    assert "stop_within_ms must be in milliseconds" in str(result.exception)


def test_tells_how_to_start_a_server():
    """When nothing listens, the message says what to do."""
    result = run(PHOTO, "--server", "http://127.0.0.1:9")
    assert isinstance(result.exception, UnavailableError)
    assert "start one with `make serve`" in str(result.exception)


def test_examples_name_real_options():
    """Every option in the examples is one of the command's."""
    known = run("--help").stdout
    for word in EXAMPLES.split():
        assert not word.startswith("--") or word in known
