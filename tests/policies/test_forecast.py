import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.policies.catalogue import candidates
from xpi_ray.policies.forecast import (
    BURSTINESS,
    BUSIEST,
    COMPUTE_SPREAD,
    DEADLINE_SLACK,
    KEPT_BACK_MS,
    Forecast,
)
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.utility import Weights
from xpi_ray.profiles.table import Profile

N = 4
PROFILE = Profile(
    machine="a toaster", threads=1, block_ms=(1.0, 2.0, 3.0, 4.0), encode_ms=0.5, decode_ms=0.25
)
THRESHOLDS = ((0.2, 0.2, 0.2, 1.0), (0.5, 0.5, 0.5, 1.0), (0.8, 0.8, 0.8, 1.0))
WEIGHTS = Weights(satisfaction=1.5, accuracy=0.7, edge_cost=0.3)
OBSERVATIONS = st.builds(
    Observation,
    edge_slowdown=st.floats(0.5, 60),
    cloud_slowdown=st.floats(0.5, 5),
    cloud_wait_ms=st.floats(0, 10),
    encode_ms=st.floats(0, 10),
    decode_ms=st.floats(0, 10),
    round_trip_ms=st.floats(0, 150),
    link_bps=st.floats(1e4, 1e9),
    link_spread=st.floats(0, 1.5),
    arrivals_rps=st.floats(0, 200),
)


@pytest.fixture(scope="module")
def plans(make_outcomes):
    """All plans of a make-believe network, partition 0 and whole images too."""
    return candidates(make_outcomes(0).with_images(), THRESHOLDS, least_partition=0)


@pytest.fixture(scope="module")
def forecast(plans):
    """Of them."""
    return Forecast(PROFILE, plans, WEIGHTS)


LIKELY = NormalDist().cdf


def wait(arrivals_rps, work_ms):
    """Pollaczek and Khinchine's mean wait in a queue before equal work."""
    busy = min(BURSTINESS * arrivals_rps * work_ms / 1000, BUSIEST)
    return busy * work_ms / (2 * (1 - busy))


def reckon(outcomes, candidate, seen, deadline_ms):
    """Sample by sample: utility, share in time, accuracy of these, mean latency."""
    partition, thresholds, level = candidate.decision
    image = partition == 0 or level == len(outcomes.frame_bytes) - 1
    entropy, correct = outcomes.entropy, outcomes.correct
    if partition < N:
        entropy = outcomes.resumed_entropy[level, partition]
        correct = outcomes.resumed_correct[level, partition]
    exits = []
    for sample in range(len(entropy)):
        sure = (e for e in range(1, N) if entropy[sample, e - 1] <= thresholds[e - 1])
        exits.append(next(sure, N))
    blocks_ms = PROFILE.block_ms
    works_ms = [
        seen.edge_slowdown * sum(blocks_ms[: min(exit_, partition)])
        + (seen.encode_ms if exit_ > partition and not image else 0.0)
        for exit_ in exits
    ]
    work_ms = np.mean(works_ms)
    wait_ms = 1 + wait(seen.arrivals_rps, work_ms)
    allowed_ms = max(DEADLINE_SLACK * deadline_ms - KEPT_BACK_MS, 0.1)
    going = [sample for sample, exit_ in enumerate(exits) if exit_ > partition]
    at_edge = np.mean(correct[going, partition - 1]) if partition and going else 0.0
    edge_ms = wait_ms + seen.edge_slowdown * sum(blocks_ms[:partition])
    instead = LIKELY(math.log(allowed_ms / edge_ms) / COMPUTE_SPREAD) if partition else 0.0
    answered, rights, latencies_ms = [], [], []
    for sample, exit_ in enumerate(exits):
        ms = wait_ms + seen.edge_slowdown * sum(blocks_ms[: min(exit_, partition)])
        spread = COMPUTE_SPREAD
        if exit_ > partition:
            sending_ms = 8_000 * float(outcomes.frame_bytes[level, partition]) / seen.link_bps
            sending_ms += wait(seen.arrivals_rps * len(going) / len(exits), sending_ms)
            ms += sending_ms + seen.round_trip_ms + seen.cloud_wait_ms
            ms += seen.decode_ms + (0.0 if image else seen.encode_ms)
            ms += seen.cloud_slowdown * sum(blocks_ms[0 if image else partition : exit_])
            spread = math.hypot(spread, seen.link_spread * sending_ms / ms)
        chance = LIKELY(math.log(allowed_ms / ms) / spread)
        right = chance * correct[sample, exit_ - 1]
        if exit_ > partition:
            right += (1 - chance) * instead * at_edge
            chance += (1 - chance) * instead
        answered.append(chance)
        rights.append(right)
        latencies_ms.append(ms)
    value = WEIGHTS.satisfaction * np.mean(answered) + WEIGHTS.accuracy * np.mean(rights)
    return (
        value - WEIGHTS.edge_cost * work_ms / 100,
        np.mean(answered),
        np.mean(rights) / max(np.mean(answered), 1e-9),
        np.mean(latencies_ms),
    )


@settings(max_examples=25)
@given(observation=OBSERVATIONS, deadline_ms=st.floats(2, 2_000))
def test_it_is_what_counting_sample_by_sample_gives(
    make_outcomes, plans, forecast, observation, deadline_ms
):
    """For every plan: utility, share in time, accuracy, latency."""
    predicted = forecast.predict(observation, deadline_ms)
    for number, candidate in enumerate(plans):
        expected = reckon(make_outcomes(0).with_images(), candidate, observation, deadline_ms)
        # The normal distribution's tails are taken from a formula that is off by 0.0003.
        for values, value, error in zip(predicted, expected, (1e-3, 1e-3, 1, 1e-6), strict=True):
            assert values[number] == pytest.approx(value, rel=1e-6, abs=error), candidate.decision
        if expected[1] > 0.2:
            assert predicted.accuracy[number] == pytest.approx(expected[2], abs=4e-3)


@settings(max_examples=60)
@given(observation=OBSERVATIONS, deadline_ms=st.floats(2, 2_000), factor=st.floats(1, 20))
def test_more_time_is_never_worse(forecast, observation, deadline_ms, factor):
    """With a longer deadline more is in time; latencies do not depend on it."""
    short = forecast.predict(observation, deadline_ms)
    long = forecast.predict(observation, deadline_ms * factor)
    assert (long.in_time >= short.in_time - 1e-12).all()
    assert (long.latency_ms == short.latency_ms).all()
    assert ((short.in_time >= 0) & (short.in_time <= 1 + 1e-12)).all()


@settings(max_examples=60)
@given(observation=OBSERVATIONS, deadline_ms=st.floats(2, 2_000), factor=st.floats(1, 20))
def test_a_quicker_link_is_never_slower(forecast, observation, deadline_ms, factor):
    """Latency falls, and with a rate that is sure more is in time."""
    sure = observation.model_copy(update={"link_spread": 0.0})
    quicker = sure.model_copy(update={"link_bps": sure.link_bps * factor})
    before, after = (forecast.predict(seen, deadline_ms) for seen in (sure, quicker))
    assert (after.latency_ms <= before.latency_ms + 1e-9).all()
    assert (after.in_time >= before.in_time - 1e-12).all()


@settings(max_examples=30)
@given(
    observations=st.lists(OBSERVATIONS, min_size=1, max_size=3),
    asked=st.lists(st.tuples(st.integers(0, 2), st.floats(2, 2_000)), max_size=8),
)
def test_what_classes_share_is_of_the_observation_alone(plans, forecast, observations, asked):
    """In whatever order it is asked, a forecast says what a fresh one would."""
    for place, deadline_ms in asked:
        observation = observations[place % len(observations)]
        fresh = Forecast(PROFILE, plans, WEIGHTS).predict(observation, deadline_ms)
        for values, expected in zip(forecast.predict(observation, deadline_ms), fresh, strict=True):
            assert (values == expected).all()


def test_with_all_the_time_in_the_world_only_accuracy_and_work_count(plans, forecast):
    """Everything is in time, and as accurate as on the held-out samples."""
    predicted = forecast.predict(Observation(link_spread=0.0), 1e9)
    assert predicted.in_time == pytest.approx(1)
    assert predicted.accuracy == pytest.approx([candidate.accuracy for candidate in plans])
    dear = Forecast(PROFILE, plans, Weights(edge_cost=0.0)).predict(Observation(), 1e9)
    assert dear.utility == pytest.approx([1 + candidate.accuracy for candidate in plans])


def test_a_crowded_edge_waits_as_a_queue_does(plans, forecast):
    """Longer with more arrivals, up to a bound."""
    waits = [
        forecast.predict(Observation(arrivals_rps=rps, edge_slowdown=2.0), 100).latency_ms
        for rps in (0, 10, 40, 1e3, 1e6)
    ]
    assert (np.diff(waits, axis=0) >= 0).all()
    assert waits[3][0] == waits[4][0]
    assert np.isfinite(waits[4]).all()
