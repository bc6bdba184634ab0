"""One error body serves the Open Inference Protocol and RFC 9457."""

import json

import pytest

from xpi_ray import errors
from xpi_ray.api.problem import problem


def test_says_what_our_error_says():
    """Status, title and both forms of the message come from the error."""
    reply = problem(errors.NotFoundError('no model "x"\r\n'), "/v2/models/x")
    assert reply.status == 404
    assert reply.headers == {"Content-Type": "application/problem+json"}
    assert json.loads(reply.body) == {
        "error": 'no model "x"\r\n',
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": 'no model "x"\r\n',
        "instance": "/v2/models/x",
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [(errors.OverloadError("full"), 429), (errors.UnavailableError("down"), 503)],
)
def test_asks_to_come_back(error, status):
    """What may pass later carries Retry-After."""
    reply = problem(error, "/")
    assert reply.status == status
    assert reply.headers["Retry-After"] == "1"


@pytest.mark.parametrize("error", [KeyError("secret"), OSError(2, "secret"), Exception()])
def test_tells_nothing_of_the_inside(error):
    """An error that is not ours is a 500 without its text."""
    reply = problem(error, "/v1/classify")
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert json.loads(reply.body)["error"]


def test_an_error_that_prints_a_traceback_shows_its_message():
    """An error that crossed Ray prints a traceback; the client still sees the message alone."""

    class Wrapped(errors.DeadlineError):
        def __str__(self):
            return "Traceback, with paths"

    reply = problem(Wrapped(errors.DeadlineError("too late")), "/")
    assert reply.status == 504
    assert json.loads(reply.body)["error"] == "too late"
