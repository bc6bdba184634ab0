"""`xpi classify` against a real HTTP server that answers by the handlers."""

import json
from collections.abc import Iterator

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from xpi_ray.api.classify_command import EXAMPLES, classify
from xpi_ray.api.handlers import HttpReply

app = typer.Typer()
app.command()(classify)


@pytest.fixture
def server(handlers, make_answer, serving) -> Iterator[str]:
    """Address of a server that takes every image for a dog."""

    def respond(path, query, headers, data):
        if path != "/v1/classify":  # as a server of another kind would
            return HttpReply(int(path.split("/")[1]), {"Content-Type": "text/html"}, b"<p>Welcome")
        call = handlers.parse_classify(headers, query, data)
        return handlers.render_classify(call, make_answer([0, 5, 0]))

    with serving(respond) as address:
        yield address


@pytest.fixture
def photo(tmp_path):
    """An image file whose name would be markup to rich."""
    path = tmp_path / "a[red].png"
    Image.new("RGB", (8, 10), "red").save(path)
    return path


def run(*arguments):
    """Run the command in a wide terminal."""
    return CliRunner().invoke(app, [str(item) for item in arguments], env={"COLUMNS": "200"})


def test_prints_tables(server, photo):
    """Tables show the answer, the stages and every exit."""
    result = run(photo, "--server", server)
    assert result.exit_code == 0, result.output
    for text in ("a[red].png", "dog", "0.9867", "cloud", "complete", "9.0", "edge", "1.235", "cat"):
        assert text in result.stdout


def test_prints_json_lines(server, photo):
    """With --json there is one document per file; exits only when asked for."""
    result = run(photo, photo, "--server", server + "/", "--json", "--deadline-ms", "70")
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert [document["file"] for document in documents] == [str(photo)] * 2
    assert documents[0]["label"] == "dog"
    assert documents[0]["deadline_ms"] == 70
    assert "exits" not in documents[0]
    with_exits = json.loads(run(photo, "--server", server, "--json", "--exits").stdout)
    assert [answer["exit"] for answer in with_exits["exits"]] == [1, 2]


def test_a_bad_file_does_not_stop_the_others(server, photo, tmp_path):
    """Each failure is told on stderr and the exit code is 1; good files are still answered."""
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    result = run(text, tmp_path / "absent.png", photo, "--server", server, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["file"] == str(photo)
    assert "notes.txt: expected a whole PNG, JPEG or WebP image" in result.stderr
    assert "absent.png: cannot read the file" in result.stderr


def test_tells_how_to_start_a_server(photo):
    """When nothing listens, the message says what to do."""
    result = run(photo, photo, "--server", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert result.stderr.count("start one with `make serve` or `xpi serve`") == 1
    assert result.stdout == ""


def test_refuses_an_address_that_is_none(photo):
    """A server without a scheme is a message, not a traceback."""
    result = run(photo, "--server", "edge:8000")
    assert result.exit_code == 1
    assert "no server answers at edge:8000" in result.stderr


@pytest.mark.parametrize(
    ("status", "message"),
    [(200, "not as an xpi server does"), (404, "the server answered 404 Not Found")],
)
def test_says_when_the_server_is_another(server, photo, status, message):
    """A page from some other server is a message, not a traceback."""
    result = run(photo, "--server", f"{server}/{status}")
    assert result.exit_code == 1
    assert message in result.stderr


def test_examples_name_real_options(photo):
    """Every option in the examples is one of the command's."""
    help_text = run("--help").stdout
    for word in EXAMPLES.split():
        assert not word.startswith("--") or word in help_text
