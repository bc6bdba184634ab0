"""How long a caller is willing to wait, however they said it.

    headers, parameters or form fields ─► the smallest time given ─► Deadline ─► budget

Every carrier is a duration; none needs two clocks to agree.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from xpi_ray.errors import RequestError

LONGEST_MS = 24 * 3600 * 1000.0  # anything longer is a mistake, not a deadline

_GRPC_UNITS_MS = {"H": 3_600_000.0, "M": 60_000.0, "S": 1000.0, "m": 1.0, "u": 1e-3, "n": 1e-6}
_GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?")

_HEADERS_MS = {  # header: milliseconds in one of its units
    "x-request-timeout-seconds": 1000.0,  # Ray Serve
    "x-envoy-expected-rq-timeout-ms": 1.0,  # Envoy, less what its retries took
}
_MILLISECONDS = ("deadline_ms", "xpi_deadline_ms")  # form or query field, OIP parameter
_EXPECTED = {
    "grpc-timeout": "1 to 8 digits and a unit of H, M, S, m, u or n, such as 200m",
    "x-request-timeout-seconds": "a number of seconds",
    "timeout": "a whole number of microseconds",
}


class Deadline(NamedTuple):
    """The time that a request has from its arrival."""

    ms: float
    source: str
    """The header, parameter or field that set it, or ``default``."""


def read_deadline(
    headers: Mapping[str, str],
    body: Mapping[str, object],
    default_ms: float,
    maximum_ms: float,
) -> Deadline:
    """Take the smallest deadline of all that a request carries, at most the server's maximum.

    Args:
        headers: Names in lower case. Read are ``grpc-timeout`` (gRPC over HTTP/2: up to 8 digits
            and a unit), ``x-request-timeout-seconds`` and ``x-envoy-expected-rq-timeout-ms``.
        body: OIP request parameters, or the form's and the query's fields. Read are ``timeout``
            (Triton: a whole number of microseconds), ``deadline_ms`` and ``xpi_deadline_ms``.
        default_ms: Taken when there is none.
        maximum_ms: What longer ones are cut to.

    Raises:
        RequestError: A carrier holds no number, or one that is not above 0 and at most 24 h.
    """
    given: list[Deadline] = []
    if (text := headers.get("grpc-timeout")) is not None:
        given.append(_deadline(_grpc_timeout_ms(text), "grpc-timeout", text))
    for name, unit_ms in _HEADERS_MS.items():
        if (text := headers.get(name)) is not None:
            given.append(_deadline(_number(text, unit_ms), name, text))
    if (value := body.get("timeout")) is not None:
        given.append(_deadline(_microseconds_ms(value), "timeout", value))
    for name in _MILLISECONDS:
        if (value := body.get(name)) is not None:
            given.append(_deadline(_number(value, 1.0), name, value))
    shortest = min(given, default=Deadline(default_ms, "default"))
    return Deadline(min(shortest.ms, maximum_ms), shortest.source)


def _deadline(ms: float | None, source: str, came: object) -> Deadline:
    if ms is None or not 0 < ms <= LONGEST_MS:
        expected = _EXPECTED.get(source, "a number of milliseconds")
        raise RequestError(
            f"{source} must be {expected}, above 0 and at most 24 hours, got {str(came)[:64]!r}"
        )
    return Deadline(ms, source)


def _grpc_timeout_ms(text: str) -> float | None:
    match = _GRPC_TIMEOUT.fullmatch(text)
    return int(match[1]) * _GRPC_UNITS_MS[match[2]] if match else None


def _microseconds_ms(value: object) -> float | None:
    return _number(value, 1e-3) if isinstance(value, int) else None


def _number(value: object, unit_ms: float) -> float | None:
    """The value in milliseconds, or None when it is no number; text may be a plain decimal."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _DECIMAL.fullmatch(value.strip(" \t")):
        return None
    try:
        return float(value) * unit_ms
    except OverflowError:  # an integer beyond any float
        return None
