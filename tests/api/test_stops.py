import numpy as np
import pytest

from xpi_ray.api.stops import MOST_STOPS, read_stops
from xpi_ray.errors import RequestError


def test_a_caller_who_says_nothing_gives_none():
    """Without fields nobody knows when the request may be stopped."""
    assert read_stops({}) is None


def test_a_latest_time_makes_stops_uniform():
    """Half of the requests still run at half of the time."""
    stops = read_stops({"stop_within_ms": "300"})
    assert stops.still_running(np.array([150.0, 300.0])) == pytest.approx([0.5, 0])


def test_times_of_stops_make_a_distribution():
    """Of four stops, one of them never, half still run after the second."""
    stops = read_stops({"stops_ms": "10, 20,30,never"})
    assert stops.still_running(np.array([5.0, 100.0])) == pytest.approx([1, 0.25], abs=0.01)
    assert 0.4 <= stops.still_running(np.array([20.0]))[0] <= 0.75


@pytest.mark.parametrize(
    "fields",
    [
        {"stop_within_ms": "300", "stops_ms": "10"},
        {"stop_within_ms": "0"},
        {"stop_within_ms": "-5"},
        {"stop_within_ms": "nan"},
        {"stop_within_ms": "1e12"},
        {"stop_within_ms": "soon"},
        {"stops_ms": ""},
        {"stops_ms": "10,,20"},
        {"stops_ms": "10,inf"},
        {"stops_ms": ",".join(["1"] * (MOST_STOPS + 1))},
        {"stops_ms": "1" * 100_000},
    ],
)
def test_what_is_no_time_is_refused(fields):
    """The message says which field is wrong and what was expected."""
    with pytest.raises(RequestError, match="stop"):
        read_stops(fields)
