import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.elastic.stop_times import StopTimes, chance

TIMES = st.lists(st.floats(0, 1000), min_size=1, max_size=40)


def check(stops):
    assert (np.diff(stops.knots_ms) > 0).all()
    assert stops.running[0] == 1
    assert (np.diff(stops.running) <= 1e-12).all()
    assert (stops.running >= -1e-12).all()


def test_uniform_stops_fall_evenly():
    """Of uniform stops up to 100 ms a quarter is past at 25 ms, and all at 100 ms and later."""
    stops = StopTimes.uniform(100)
    check(stops)
    assert stops.still_running(np.array([0, 25, 100, 200])) == pytest.approx([1, 0.75, 0, 0])


@given(times=TIMES)
def test_recorded_stops_are_matched_within_one_of_them(times):
    """At any time the chance is the share of stops still to come, one more or less."""
    stops = StopTimes.recorded(np.array(times))
    check(stops)
    at = np.linspace(0, 1200, 97)
    later = np.array([np.mean(np.array(times) > each) for each in at])
    sooner = np.array([np.mean(np.array(times) >= each) for each in at])
    slack = 1 / len(times) + 1e-9
    found = stops.still_running(at)
    assert (found >= later - slack).all()
    assert (found <= sooner + slack).all()


def test_requests_that_nobody_stopped_stay():
    """Of recorded stops of which a half is infinite, a half still runs at any later time."""
    stops = StopTimes.recorded(np.array([10.0, 20.0, np.inf, np.inf]))
    check(stops)
    assert stops.still_running(np.array([30.0, 1e9])) == pytest.approx([0.5, 0.5])


def test_stops_that_all_came_at_once_make_a_step():
    """Stops that are all at 50 ms leave every request running before, and none after."""
    stops = StopTimes.recorded(np.full(10, 50.0))
    check(stops)
    assert stops.still_running(np.array([49.9, 50.1])) == pytest.approx([1, 0], abs=0.003)


@given(times=TIMES, weight=st.floats(0.01, 10), at=st.floats(0, 1500))
def test_a_mixture_is_the_weighted_mean(times, weight, at):
    """A mixture's chance is the mean of its parts' chances by their weights."""
    parts = [StopTimes.uniform(300), StopTimes.recorded(np.array(times))]
    mixed = StopTimes.mixture(parts, [1, weight])
    check(mixed)
    one, other = (part.still_running(np.array([at]))[0] for part in parts)
    expected = (one + weight * other) / (1 + weight)
    assert mixed.still_running(np.array([at]))[0] == pytest.approx(expected)


@given(times=TIMES, at=st.floats(-10, 1500))
def test_the_compiled_chance_is_the_same(times, at):
    """``chance`` and ``still_running`` agree at any time."""
    stops = StopTimes.recorded(np.array(times))
    assert chance(at, stops) == pytest.approx(stops.still_running(np.array([at]))[0])


@pytest.mark.parametrize("end_ms", [0, -1, np.inf, np.nan])
def test_an_end_that_is_no_time_is_refused(end_ms):
    """A uniform distribution needs a finite end above 0."""
    with pytest.raises(ValueError, match="last stop"):
        StopTimes.uniform(end_ms)


@pytest.mark.parametrize("times", [[], [-1.0], [np.nan]])
def test_recorded_stops_that_are_no_times_are_refused(times):
    """Recorded stops are at 0 ms or later, and there is one at least."""
    with pytest.raises(ValueError, match="expected stops"):
        StopTimes.recorded(np.array(times))


@pytest.mark.parametrize("weights", [[], [1], [0, 0], [-1, 2], [np.nan, 1]])
def test_weights_that_make_no_mixture_are_refused(weights):
    """A mixture needs a weight for each part, none below 0 and one above."""
    with pytest.raises(ValueError, match="weight"):
        StopTimes.mixture([StopTimes.uniform(1), StopTimes.uniform(2)], weights)
