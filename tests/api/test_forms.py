"""Queries and multipart forms become fields, or an error that says why not."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.api.forms import is_form, read_form, read_query
from xpi_ray.errors import RequestError

TYPE = "multipart/form-data; boundary=xx"


def part(name, value):
    """One field of a form with the boundary ``xx``."""
    return b'--xx\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name, value)


@given(
    st.dictionaries(
        st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1),
        st.binary(),
        max_size=7,
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)
def test_reads_what_httpx_writes(fields, filename):
    """Any bytes survive, line ends and dashes included."""
    files = {name: (f"{filename};name=x", value) for name, value in fields.items()}
    request = httpx.Request("POST", "http://x", files=files or {"a": b""})
    body = read_form(request.headers["content-type"], request.read())
    assert body == (fields or {"a": b""})


@given(st.binary())
def test_reads_an_image_that_looks_like_a_form(value):
    """Line ends and dashes inside a field stay in it."""
    value = b"\r\n" + value + b"\r\n--x\r\n--\r\n"
    if b"\r\n--xx" not in value:
        assert read_form(TYPE, part(b"image", value) + b"--xx--\r\n") == {"image": value}


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("multipart/form-data", b"", "name its boundary"),
        ("multipart/form-data; boundary=", b"", "name its boundary"),
        ("multipart/form-data; boundary=" + "x" * 71, b"", "name its boundary"),
        (TYPE, b"", "does not end"),
        (TYPE, b"rubbish", "does not end"),
        (TYPE, part(b"image", b"1"), "does not end"),
        (TYPE, part(b"a", b"") * 2 + b"--xx--", "'a' twice"),
        (TYPE, b"".join(part(b"%d" % i, b"") for i in range(9)) + b"--xx--", "more than 8"),
        (TYPE, part(b"a", b"") * 100_000 + b"--xx--", "more than 8"),
        (TYPE, b"--xx\r\nX: y\r\n\r\n1\r\n--xx--", "Content-Disposition"),
        (TYPE, b"--xx\r\n\r\n1\r\n--xx--", "Content-Disposition"),
        (TYPE, b"--xxy\r\n\r\n1\r\n--xx--", "headers"),
        (TYPE, b"--xx\r\n" + b"X: y\r\n" * 1000 + b"\r\n1\r\n--xx--", "headers"),
    ],
    ids=[
        "no boundary", "empty boundary", "long boundary", "empty", "rubbish", "cut off", "twice",
        "nine fields", "many fields", "no disposition", "no headers", "other boundary",
        "long headers",
    ],
)  # fmt: skip
def test_refuses_forms(content_type, body, message):
    """A malformed form is refused in words that name the fault."""
    with pytest.raises(RequestError, match=message):
        read_form(content_type, body)


def test_reads_queries():
    """Fields are decoded; a flag without a value is an empty text."""
    assert read_query("deadline_ms=2%305&exits") == {"deadline_ms": "205", "exits": ""}
    assert read_query("") == {}


@pytest.mark.parametrize("query", ["a=1&a=2", "&".join(f"f{i}=1" for i in range(9))])
def test_refuses_queries(query):
    """A field given twice, or too many, is refused."""
    with pytest.raises(RequestError, match="the query"):
        read_query(query)


def test_knows_a_form():
    """Case and parameters do not matter; an urlencoded body is no form."""
    assert is_form("Multipart/Form-Data; boundary=x")
    assert not is_form("application/x-www-form-urlencoded")
    assert not is_form("")
