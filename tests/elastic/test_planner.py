import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.elastic.planner import Ahead, exact, expectation
from xpi_ray.elastic.stop_times import StopTimes


def simulated(plan, ahead, stops):
    """The mean confidence in hand over a fine grid of stops."""
    shares = (np.arange(20_000) + 0.5) / 20_000
    left = stops.running[-1]
    times = np.interp(shares, 1 - stops.running, stops.knots_ms)  # the inverse of the distribution
    times[shares > 1 - left] = np.inf
    ends = [(0.0, ahead.held)]
    spent = 0.0
    for k in np.flatnonzero(plan):
        spent += ahead.exit_ms[k]
        ends.append((ahead.reach_ms[k] + spent, ahead.confidence[k]))
    finished, confidence = np.array(ends).T
    return confidence[np.searchsorted(finished, times, side="right") - 1].mean()


@given(data=st.data(), bits=st.integers(0, 31))
@settings(max_examples=50)
def test_the_expectation_is_the_mean_over_stops(data, bits, problems):
    """A plan's expectation is what a fine grid of stops finds in hand, on average."""
    ahead, stops = data.draw(problems(most=5))
    plan = np.array([bool(bits >> k & 1) for k in range(len(ahead.reach_ms))])
    plan &= np.isfinite(ahead.exit_ms)
    steps = np.concatenate([np.diff(stops.running), [0]])
    if -steps.min() > 0.999 and (np.diff(stops.knots_ms) < 1e-2).any():
        return  # a step is too steep for the grid
    assert expectation(plan, ahead, stops) == pytest.approx(simulated(plan, ahead, stops), abs=2e-3)


@given(data=st.data())
@settings(max_examples=300)
def test_no_plan_is_better_than_the_exact_one(data, problems):
    """Among all 2^n plans none has a higher expectation than the one that is found."""
    ahead, stops = data.draw(problems())
    found = exact(ahead, stops)
    best = max(
        expectation(np.array(plan), ahead, stops)
        for plan in itertools.product([False, True], repeat=len(found))
        if np.isfinite(ahead.exit_ms[np.array(plan)]).all()
    )
    assert expectation(found, ahead, stops) == pytest.approx(best, abs=1e-12)
    assert np.isfinite(ahead.exit_ms[found]).all()


@given(data=st.data())
def test_confidences_rise_along_the_exact_plan(data, problems):
    """No exit of the plan that is found lowers the confidence in hand."""
    ahead, stops = data.draw(problems())
    hand = [ahead.held, *ahead.confidence[exact(ahead, stops)]]
    assert (np.diff(hand) > 0).all()


def test_fourteen_exits_are_planned_as_brute_force_does():
    """On 40 problems of fine-grained VGG-16's size the plan is as good as the best of 16,384."""
    rng = np.random.default_rng(3)
    plans = np.array(list(itertools.product([False, True], repeat=14)))
    for _ in range(40):
        confidence = np.clip(np.sort(rng.beta(4, 2, 14)) + rng.normal(0, 0.05, 14), 0, 1)
        exits = rng.uniform(0.2, 2, 14)
        ahead = Ahead(np.cumsum(rng.uniform(0.5, 3, 14)), exits, confidence, 0.0)
        end = rng.uniform(0.5, 1.2) * (ahead.reach_ms[-1] + exits.sum())
        stops = StopTimes.uniform(end)
        ends = ahead.reach_ms + np.cumsum(plans * exits, axis=1)
        chances = np.where(plans, stops.still_running(ends), 0)
        hand = np.zeros(len(plans))
        value = np.zeros(len(plans))
        for k in range(14):
            value += chances[:, k] * (confidence[k] - hand)
            hand = np.where(plans[:, k], confidence[k], hand)
        found = expectation(exact(ahead, stops), ahead, stops)
        assert found == pytest.approx(value.max(), abs=1e-12)


def test_an_exit_that_costs_nothing_and_helps_is_run():
    """Where exits take next to no time and confidences rise, all of them run."""
    ahead = Ahead(np.arange(1.0, 11), np.full(10, 1e-9), np.linspace(0.1, 0.9, 10), 0.0)
    assert exact(ahead, StopTimes.uniform(20)).all()


def test_an_exit_that_nobody_lives_to_see_is_skipped():
    """A request that is stopped before an exit could end does not plan it."""
    ahead = Ahead(np.array([1.0, 100.0]), np.array([1.0, 1.0]), np.array([0.5, 0.9]), 0.0)
    assert exact(ahead, StopTimes.uniform(50)).tolist() == [True, False]


def test_nothing_ahead_needs_no_plan():
    """Behind the last exit the plan is empty."""
    nothing = np.empty(0)
    assert len(exact(Ahead(nothing, nothing, nothing, 0.7), StopTimes.uniform(10))) == 0


def test_many_labels_fit():
    """A problem with more ways to remember than there is room for at first is solved exactly."""
    rng = np.random.default_rng(5)
    count = 40
    ahead = Ahead(
        np.cumsum(rng.uniform(0.5, 2, count)),
        rng.uniform(0.01, 0.5, count),
        np.sort(rng.uniform(0, 1, count)),
        0.0,
    )
    stops = StopTimes.recorded(rng.gamma(2, 20, 200))
    found = exact(ahead, stops)
    value = expectation(found, ahead, stops)
    for k in range(count):  # no neighbour is better
        other = found.copy()
        other[k] = not other[k]
        assert expectation(other, ahead, stops) <= value + 1e-12
