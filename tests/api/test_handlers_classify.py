"""Classify requests are read from a body or a form, bad ones refused, and answers are complete."""

import json
from io import BytesIO

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xpi_ray.api.handlers import ClassifyCall
from xpi_ray.api.schema import ClassifyAnswer
from xpi_ray.errors import RequestError
from xpi_ray.inference.answer import Stages


def png(height=5, width=4):
    """A PNG file of one colour."""
    buffer = BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content_type",
    [None, "application/x-www-form-urlencoded", "image/png", "application/octet-stream", "x"],
)
def test_classify_takes_the_image_as_the_body(handlers, content_type):
    """`curl --data-binary` works with whatever Content-Type it sends."""
    headers = {} if content_type is None else {"content-type": content_type}
    call = handlers.parse_classify(headers, "deadline_ms=80&exits=true", png())
    assert call.image.shape == (3, 5, 4)
    assert call.image[:, 0, 0].tolist() == [10, 20, 30]
    assert call.deadline == (80.0, "deadline_ms")
    assert call.wants_exits
    assert call.decode_image_ms > 0


def test_classify_takes_a_form(handlers):
    """`curl -F` works: the same image and options, as fields."""
    request = httpx.Request(
        "POST",
        "http://x",
        files={"image": ("a.png", png(10, 8)), "deadline_ms": (None, "200")},
    )
    call = handlers.parse_classify(dict(request.headers), "exits=0", request.read())
    assert call.image.shape == (3, 5, 4)
    assert call.deadline == (200.0, "deadline_ms")
    assert not call.wants_exits


def form(**form_fields):
    """Headers and body of a form."""
    files = {name: (None, value) for name, value in form_fields.items()}
    request = httpx.Request("POST", "http://x", files=files)
    return {"content-type": request.headers["content-type"]}, request.read()


def bad(query="", body=None, status=400, **fields):
    """A classify request as headers, query and body, and the status that it deserves."""
    headers, body = form(**fields) if body is None else ({}, body)
    return headers, query, body, status


BAD_CLASSIFY = {
    "empty": bad(body=b""),
    "no image": bad(body=b"hello"),
    "gif": bad(body=b"GIF89a", status=415),
    "large image": bad(body=bytes(10 * 2**20 + 1), status=413),
    "large body": bad(body=bytes(11 * 2**20), status=413),
    "unknown in the query": bad("deadline=5", png()),
    "deadline twice": bad("deadline_ms=5&deadline_ms=6", png()),
    "deadline no number": bad("deadline_ms=soon", png()),
    "deadline NaN": bad("deadline_ms=nan", png()),
    "deadline empty": bad("deadline_ms=", png()),
    "exits unclear": bad("exits=maybe", png()),
    "form without image": bad(deadline_ms=b"5"),
    "form with an empty image": bad(image=b""),
    "unknown in the form": bad(image=png(), deadline=b"5"),
    "form and query disagree": bad("exits=1", image=png(), exits=b"0"),
    "form deadline no number": bad(image=png(), deadline_ms=b"\xff"),
    "form cut off": ({"content-type": "multipart/form-data; boundary=x"}, "", b"--x", 400),
}


@pytest.mark.parametrize(
    ("headers", "query", "body", "status"), BAD_CLASSIFY.values(), ids=list(BAD_CLASSIFY)
)
def test_refuses_bad_classify_requests(handlers, headers, query, body, status):
    """Each fault of a classify request has its status."""
    with pytest.raises(RequestError) as caught:
        handlers.parse_classify(headers, query, body)
    assert caught.value.status == status


@pytest.mark.parametrize("exits", [True, False])
def test_classify_answers(handlers, make_answer, exits):
    """Score is the softmax of the winner, and every exit's answer comes only when asked for."""
    call = handlers.parse_classify({}, f"exits={exits}".lower(), png())
    reply = handlers.render_classify(call, make_answer([1, 2, 4]))
    answer = ClassifyAnswer.model_validate_json(reply.body)
    share = np.exp([1, 2, 4]) / np.exp([1, 2, 4]).sum()
    assert (answer.label, answer.score) == ("pingüino", round(share[2], 4))
    assert (answer.exit, answer.tier, answer.status) == (2, "cloud", "complete")
    assert (answer.deadline_ms, answer.deadline_source) == (1000.0, "default")
    assert answer.budget_left_ms == 12.346
    assert answer.stages.keys() == Stages.__dataclass_fields__.keys()
    assert answer.stages["edge_ms"] == 1.235
    assert ("exits" in json.loads(reply.body)) == exits
    if exits:
        assert [(exit_.exit, exit_.label, exit_.entropy) for exit_ in answer.exits] == [
            (1, "cat", 0.9123),
            (2, "pingüino", 0.1),
        ]


def test_scores_do_not_overflow(handlers, make_answer):
    """Logits of any size give a score of 0..1."""
    call = handlers.parse_classify({}, "", png())
    reply = handlers.render_classify(call, make_answer([1e30, -1e30, 1e30]))
    assert json.loads(reply.body)["score"] == 0.5


TEXT = st.text(max_size=20)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": TEXT.map("multipart/form-data; boundary=".__add__) | TEXT,
        "content-encoding": TEXT,
        "grpc-timeout": TEXT,
    },
)


@given(headers=HEADERS, query=TEXT, body=st.binary(max_size=300))
def test_arbitrary_bytes_are_no_classify_request(handlers, headers, query, body):
    """Whatever the bytes, the only outcome is a RequestError."""
    with pytest.raises(RequestError):
        handlers.parse_classify(headers, query, body)


@given(field=st.binary(max_size=30), name=st.sampled_from(["exits", "deadline_ms", "x"]))
def test_arbitrary_fields_are_read_or_refused(handlers, field, name):
    """Any value of a form's field gives a call or a RequestError."""
    try:
        headers, body = form(image=png(), **{name: field})
        call = handlers.parse_classify(headers, "", body)
    except RequestError:
        return
    assert isinstance(call, ClassifyCall)
    assert call.deadline.ms > 0
