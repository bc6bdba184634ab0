import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.link.estimator import LEAST_BPS, MOST_BPS, LinkEstimator
from xpi_ray.link.traces import Trace, read, trace_folder

DELAY_S = 0.04


def send(estimator, trace, times_s, seed=0, stalls=(), jitter_s=0.0005):
    """Send a frame at each time over a FIFO link; tell the estimator each answer as it comes."""
    rng = random.Random(seed)
    answers, free_s = [], 0.0
    for number, sent_s in enumerate(times_s):
        size = rng.randint(500, 8_000)
        free_s = trace.delivered_s(max(sent_s, free_s), size)
        replied_s = free_s + DELAY_S + rng.expovariate(1 / jitter_s)
        answers.append((replied_s + (0.5 if number in stalls else 0.0), sent_s, size))
    for replied_s, sent_s, size in sorted(answers):
        estimator.observe(sent_s, size, replied_s - sent_s)
    return max(answers)[0]


def steady(bps):
    """A link whose rate never changes."""
    return Trace("steady", 1.0, np.array([bps]))


def every(seconds, count, start_s=0.0):
    """``count`` times, evenly spaced."""
    return [start_s + number * seconds for number in range(count)]


@pytest.mark.parametrize("bps", [2e5, 1e6, 5e6])
@pytest.mark.parametrize("prior_bps", [1e5, 1e7, 1e9])
def test_rate_and_delay_are_told_apart(bps, prior_bps):
    """Frames of unlike sizes show both, whatever was believed before."""
    estimator = LinkEstimator(prior_bps)
    now_s = send(estimator, steady(bps), every(0.5, 150))
    found = estimator.estimate(now_s)
    assert found.bandwidth_bps == pytest.approx(bps, rel=0.25)
    # Where sending takes many times as long, the delay is known to a fraction of that only.
    assert found.round_trip_s == pytest.approx(DELAY_S, rel=0.1, abs=0.1 * 8 * 4_250 / bps)
    assert found.quantile_bps(0.05) < bps < found.quantile_bps(0.95)


def test_frames_of_a_burst_share_the_link():
    """Eight at once take up to eight times as long, and the link is no slower for it."""
    estimator = LinkEstimator()
    times = [start_s for start_s in every(1.0, 30) for _ in range(8)]
    now_s = send(estimator, steady(1e6), times)
    assert estimator.estimate(now_s).bandwidth_bps == pytest.approx(1e6, rel=0.2)


def test_a_link_that_became_too_slow_for_answers_is_noticed():
    """Where nothing comes back in time, waiting in vain tells that the link is slow."""
    estimator = LinkEstimator()
    now_s = send(estimator, steady(5e6), every(0.5, 40))
    for number in range(20):
        estimator.observe_late(now_s + number, 4_000, 0.4)
    assert estimator.estimate(now_s + 20).bandwidth_bps < 8 * 4_000 / 0.4


def test_waiting_less_than_expected_tells_nothing():
    """An answer that was given up early may have been on its way."""
    estimator = LinkEstimator()
    now_s = send(estimator, steady(1e5), every(2.0, 40))
    before = estimator.estimate(now_s)
    for number in range(20):
        estimator.observe_late(now_s + number, 4_000, 0.1)
    assert estimator.estimate(now_s) == before


def test_one_stalled_reply_hardly_counts():
    """A frame that takes half a second more divides the estimate by three at most, for a while."""
    stalled, later = LinkEstimator(), LinkEstimator()
    now_s = send(stalled, steady(1e6), every(1.0, 50), stalls={49})
    assert 1e6 / 3 <= stalled.estimate(now_s).bandwidth_bps < 1e6
    now_s = send(later, steady(1e6), every(1.0, 65), stalls={49})
    assert later.estimate(now_s).bandwidth_bps == pytest.approx(1e6, rel=0.25)


def test_a_change_of_rate_is_followed():
    """Three seconds after a fall to a tenth or a rise to ten times, at ten frames a second."""
    estimator = LinkEstimator()
    trace = Trace("steps", 10.0, np.array([4e7, 4e6, 4e7]))
    for until_s, bps in ((10.0, 4e6), (13.0, 4e5), (23.0, 4e6)):
        since_s = max(0.0, until_s - 3)
        now_s = send(estimator, trace, every(0.1, int((until_s - since_s) / 0.1), since_s))
        assert estimator.estimate(now_s).bandwidth_bps == pytest.approx(bps, rel=0.5)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_another_path_has_another_delay(factor):
    """A delay that falls to half or doubles is learned anew, and the rate stays what it was."""
    estimator, rng = LinkEstimator(), random.Random(0)
    for number in range(600):
        size = rng.randint(500, 8_000)
        delay_s = DELAY_S * (factor if number >= 200 else 1) + rng.expovariate(2_000)
        estimator.observe(float(number), size, delay_s + 8 * size / 1e6)
    found = estimator.estimate(600.0)
    assert found.round_trip_s == pytest.approx(DELAY_S * factor, rel=0.1)
    assert found.bandwidth_bps == pytest.approx(1e6, rel=0.2)


def test_silence_widens_the_spread_and_moves_nothing():
    """The spread of an idle link grows up to a bound; bandwidth and round trip stay."""
    estimator = LinkEstimator()
    now_s = send(estimator, steady(1e6), every(0.5, 100))
    beliefs = [estimator.estimate(now_s + idle_s) for idle_s in (0, 1, 3, 1e3, 1e6)]
    assert len({belief[:2] for belief in beliefs}) == 1
    spreads = [belief.spread for belief in beliefs]
    assert spreads[0] < spreads[1] < spreads[2] < spreads[3] == spreads[4]
    assert spreads[4] == LinkEstimator().estimate(0.0).spread


def test_before_any_sample_the_prior_holds():
    """With a spread that says how little is known."""
    found = LinkEstimator(5e6, 0.1).estimate(1e9)
    assert found[:2] == pytest.approx((5e6, 0.1))
    assert found.quantile_bps(0.9) / found.quantile_bps(0.1) > 10
    assert found.quantile_bps(0.5) == found.bandwidth_bps


def test_an_answer_that_was_overtaken_tells_nothing():
    """Nor does one that took no time: both leave the belief as it was."""
    estimator = LinkEstimator()
    estimator.observe(1.0, 1_000, 0.1)
    before = estimator.estimate(2.0)
    estimator.observe(0.5, 9_000, 0.3)
    for taken_s in (0.0, -1.0, math.nan):
        estimator.observe(1.5, 1_000, taken_s)
    assert estimator.estimate(2.0) == before


@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.integers(1, 2**24), st.floats(1e-7, 1e5)), max_size=60)
)
def test_nothing_upsets_it(samples):
    """Any sizes and times: finite belief within bounds, and the same for the same samples."""
    twins = LinkEstimator(), LinkEstimator()
    for gap_s, size, taken_s in samples:
        for estimator in twins:
            estimator.observe(gap_s, size, taken_s)
    found = twins[0].estimate(2e5)
    assert found == twins[1].estimate(2e5)
    assert LEAST_BPS * 0.999 <= found.bandwidth_bps <= MOST_BPS * 1.001
    assert 0 < found.round_trip_s < math.inf
    assert 0 < found.spread < 2


def test_a_real_uplink_is_known_better_than_by_smoothed_rates():
    """On UMTS while driving, one frame in flight: half the median error of an average of rates."""
    folder = trace_folder()
    if folder is None:
        pytest.skip("no ../shared/traces; set XPI_TRACES_DIR to a folder of real traces")
    trace = read(folder / "uplink" / "TMobile-UMTS-driving.up")
    rng, estimator, smoothed, errors = random.Random(0), LinkEstimator(), 1e6, ([], [])
    now_s = 0.0
    while now_s < 300:
        size = rng.randint(500, 8_000)
        taken_s = trace.delivered_s(now_s, size) + DELAY_S - now_s
        estimator.observe(now_s, size, taken_s)
        smoothed += 0.2 * (8 * size / taken_s - smoothed)
        now_s += taken_s
        truth = trace.mean_bps(now_s, now_s + 1)
        if truth > 0:
            found = estimator.estimate(now_s).bandwidth_bps
            for series, value in zip(errors, (found, smoothed), strict=True):
                series.append(abs(value - truth) / truth)
        now_s += rng.expovariate(10)
    ours, theirs = (np.median(series) for series in errors)
    assert ours < theirs / 2
