"""The shortest deadline that a request carries wins, and nonsense is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.api.deadline import LONGEST_MS, Deadline, read_deadline
from xpi_ray.errors import RequestError

DAY_MS = 24 * 3600 * 1000


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({}, {}, Deadline(1000, "default")),
        ({"grpc-timeout": "200m"}, {}, Deadline(200, "grpc-timeout")),
        ({"grpc-timeout": "1S"}, {}, Deadline(1000, "grpc-timeout")),
        ({"grpc-timeout": "99999999n"}, {}, Deadline(99.999999, "grpc-timeout")),
        ({"grpc-timeout": "1500u"}, {}, Deadline(1.5, "grpc-timeout")),
        (
            {"x-request-timeout-seconds": "0.25"},
            {},
            Deadline(250, "x-request-timeout-seconds"),
        ),
        (
            {"x-envoy-expected-rq-timeout-ms": "70"},
            {},
            Deadline(70, "x-envoy-expected-rq-timeout-ms"),
        ),
        ({}, {"timeout": 700_000}, Deadline(700, "timeout")),
        ({}, {"deadline_ms": "33.5"}, Deadline(33.5, "deadline_ms")),
        ({}, {"deadline_ms": 1e2}, Deadline(100, "deadline_ms")),
        ({}, {"xpi_deadline_ms": 40}, Deadline(40, "xpi_deadline_ms")),
        ({"grpc-timeout": "2M"}, {}, Deadline(5000, "grpc-timeout")),
        ({"grpc-timeout": "24H"}, {}, Deadline(5000, "grpc-timeout")),
    ],
    ids=str,
)
def test_reads_every_carrier(headers, body, expected):
    """Each carrier is read in its own unit, and cut to the maximum of 5000 ms."""
    deadline = read_deadline(headers, body, 1000, 5000)
    assert deadline.ms == pytest.approx(expected.ms)
    assert deadline.source == expected.source


@pytest.mark.parametrize(
    "value",
    [
        0, -5, -0.1, True, False, "abc", "", "nan", "inf", "-1", "1_000", "١٢", [5], {}, 10**400,
        float("nan"), float("inf"), DAY_MS + 1, "1e999", "0x10", "0", "5 ms",
    ],
    ids=lambda value: repr(value)[:12],
)  # fmt: skip
def test_refuses_what_is_no_deadline(value):
    """A deadline that is not a number of (0, 24 h] is refused in the words of its carrier."""
    with pytest.raises(RequestError, match="deadline_ms must be a number of milliseconds"):
        read_deadline({}, {"deadline_ms": value}, 1000, 5000)


@pytest.mark.parametrize(
    "text", ["", "0S", "-1S", "5", "S", "123456789m", "1.5S", "1s", "1 S", "25H", "1S, 2S"]
)
def test_refuses_what_is_no_grpc_timeout(text):
    """GRPC's form is 1 to 8 digits and a unit."""
    with pytest.raises(RequestError, match="grpc-timeout must be 1 to 8 digits"):
        read_deadline({"grpc-timeout": text}, {}, 1000, 5000)


@pytest.mark.parametrize("value", [1.5, "700000", "abc", True, 0, -5, 10**18, 10**400], ids=str)
def test_refuses_what_is_no_triton_timeout(value):
    """Triton's ``timeout`` is a whole number of microseconds."""
    with pytest.raises(RequestError, match="timeout must be a whole number of microseconds"):
        read_deadline({}, {"timeout": value}, 1000, 5000)


@pytest.mark.parametrize("name", ["x-request-timeout-seconds", "x-envoy-expected-rq-timeout-ms"])
@pytest.mark.parametrize("text", ["0", "-1", "nan", "Infinity", "soon", "1,2", "1e300"])
def test_refuses_header_values(name, text):
    """The other headers are decimals above 0; no second carrier makes up for a bad one."""
    with pytest.raises(RequestError, match=name):
        read_deadline({name: text}, {"deadline_ms": 5}, 1000, 5000)


@given(
    grpc_ms=st.none() | st.integers(1, 10**6),
    timeout_us=st.none() | st.integers(1, 10**9),
    field_ms=st.none() | st.floats(1e-3, LONGEST_MS),
    maximum_ms=st.floats(1, 1e6),
)
def test_the_smallest_wins(grpc_ms, timeout_us, field_ms, maximum_ms):
    """The result is the smallest of all given, or the default, and never above the maximum."""
    headers = {} if grpc_ms is None else {"grpc-timeout": f"{grpc_ms}m"}
    body = {} if timeout_us is None else {"timeout": timeout_us}
    if field_ms is not None:
        body["xpi_deadline_ms"] = field_ms
    given_ms = [grpc_ms, timeout_us and timeout_us / 1000, field_ms]
    expected_ms = min([ms for ms in given_ms if ms is not None], default=500.0)
    deadline = read_deadline(headers, body, 500.0, maximum_ms)
    assert deadline.ms == pytest.approx(min(expected_ms, maximum_ms))
    assert (deadline.source == "default") == (not headers and not body)
