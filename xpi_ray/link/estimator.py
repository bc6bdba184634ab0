"""How fast the link is, from the size of each frame and the time until its answer came.

frame sent, answer back ─► LinkEstimator.observe ─► estimate(now) ─► bandwidth, round trip, spread

A small frame's time is mostly fixed delay, so rate and delay must be told apart. The model is

    seconds = D + 8 · bytes / r

for a frame that had the link to itself, in logarithms, where noise is relative. An extended Kalman
filter (as in BART, Ekelin et al., NOMS'06, and in Google's congestion control for WebRTC, Carlucci
et al., MMSys'16) holds ln r, which wanders as in Sprout (Winstein et al., NSDI'13), and ln D, which
hardly does; frames of unlike sizes tell the two apart. Three things make it robust:

- Bursts: frames in flight together share the link, so a frame's own time begins no earlier than
  the answer before its own came, less D.
- Outliers: what a sample may teach is cut at ``CLIP`` standard deviations (Huber), and a step of
  ln r at ``LARGEST_STEP``.
- Drift between r and D: no round trip takes less than the least D, so the smallest of the last
  ``WINDOW_S`` to 2 · ``WINDOW_S`` bounds D, as in BBR (Cardwell et al., ACM Queue'16), with half
  a jitter's allowance since D is what a frame usually waits.

While no answer comes the estimate stays and its spread grows.

The filter is functions on a row of ``SIZE`` numbers, so that the simulator compiles the same ones.
"""

import math
from collections.abc import MutableSequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OPTIMISM = 0.8  # probability that the link carries less than what is called sendable
OPTIMISM_DEVIATIONS = NormalDist().inv_cdf(OPTIMISM)
HORIZON_S = 1.0
"""The bandwidth is predicted as the mean over this time."""
DRIFT = 0.2  # variance of ln r that a second adds
DELAY_DRIFT = 5e-5  # likewise of ln D
SCATTER = 0.5  # standard deviation of one frame's ln(rate) around the second's
SECOND_VARIANCE = 0.1  # of ln(mean rate over the horizon) beside drift
LARGEST_VARIANCE = 2.0  # of ln r: before any sample, and after a long silence
LARGEST_DELAY_VARIANCE = 1.0
CLIP = 2.0
SECANT = 1.5  # deviations beyond which a slow frame is linearised half-way to itself
LARGEST_STEP = 1.0
LATE = 2.0  # what a frame that was given up would have taken, to the time that it was given
WINDOW_S = 30.0
LEAST_BPS, MOST_BPS = 1e4, 1e9
JITTER = 0.1  # of the delay, relative, at first; then learned, within these bounds:
LEAST_JITTER, MOST_JITTER = 0.003, 0.15
JITTER_MEMORY = 0.03  # weight of the newest deviation
# Where a row keeps what.
LOG_RATE, LOG_DELAY, RATE_VARIANCE, DELAY_VARIANCE, COVARIANCE, NOW_JITTER = 0, 1, 2, 3, 4, 5
REPLIED_S = 6  # when the latest answer came
WINDOW_FROM_S = 7  # when the present window began
LEAST_S, LEAST_BEFORE_S = 8, 9  # round trips of this window and the last
SIZE = 10

Row = MutableSequence[float] | NDArray[np.float64]


class LinkEstimate(NamedTuple):
    """What the link does in the second to come."""

    bandwidth_bps: float
    """Median of what is believed."""
    round_trip_s: float
    """There and back for a frame without size."""
    spread: float
    """Standard deviation of the bandwidth's natural logarithm."""

    def quantile_bps(self, share: float) -> float:
        """The bandwidth below which the true one lies with probability ``share``, 0..1 open."""
        return self.bandwidth_bps * math.exp(self.spread * NormalDist().inv_cdf(share))


class LinkEstimator:
    """Learns one link; constant time and memory a sample, deterministic.

    Times are of one clock that never falls, as ``time.perf_counter``, in seconds.

    Args:
        prior_bps: What to assume before anything crossed.
        prior_round_trip_s: Likewise.
    """

    def __init__(self, prior_bps: float = 10e6, prior_round_trip_s: float = 0.03) -> None:
        self._row: Row = [0.0] * SIZE
        begin(self._row, prior_bps, prior_round_trip_s)

    def observe(self, sent_s: float, size_bytes: int, taken_s: float) -> None:
        """Learn from a frame that was answered; in order of the answers.

        Args:
            sent_s: When it was sent.
            size_bytes: Its size, at least 1.
            taken_s: From then until its answer, less the cloud's own time. Left out if not
                above 0, which the difference of two clocks can be.
        """
        learn(self._row, sent_s, size_bytes, taken_s, 1.0)

    def observe_late(self, sent_s: float, size_bytes: int, waited_s: float) -> None:
        """Learn from a frame whose answer had not come after ``waited_s``, if that is a surprise.

        It would have taken longer, how much is not known. Without this a link that became too slow
        for any answer to come in time would be believed quick for ever.
        """
        learn_late(self._row, sent_s, size_bytes, waited_s)

    def estimate(self, now_s: float) -> LinkEstimate:
        """What is believed of the second after ``now_s``, which may lie before the last answer."""
        return LinkEstimate(
            math.exp(self._row[LOG_RATE]), math.exp(self._row[LOG_DELAY]), spread(self._row, now_s)
        )


def begin(row: Row, prior_bps: float, prior_round_trip_s: float) -> None:
    """Forget all but what is assumed before anything crossed."""
    row[LOG_RATE], row[LOG_DELAY] = math.log(prior_bps), math.log(prior_round_trip_s)
    row[RATE_VARIANCE], row[DELAY_VARIANCE] = LARGEST_VARIANCE, LARGEST_DELAY_VARIANCE
    row[COVARIANCE], row[NOW_JITTER] = 0.0, JITTER
    row[REPLIED_S] = row[WINDOW_FROM_S] = -math.inf
    row[LEAST_S] = row[LEAST_BEFORE_S] = math.inf


def learn(row: Row, sent_s: float, size_bytes: float, taken_s: float, factor: float) -> None:
    """Learn from a frame that was on its way so long; alone it takes ``factor`` times that."""
    replied_s = sent_s + taken_s
    if not taken_s > 0 or replied_s <= row[REPLIED_S]:
        return  # overtaken: what it waited for is not known
    _bound_delay(row, replied_s, taken_s)
    # The answer before left the link D earlier; until then this frame had to wait.
    alone_s = replied_s - max(sent_s, row[REPLIED_S] - math.exp(row[LOG_DELAY]))
    if row[REPLIED_S] > -math.inf:
        _age(row, replied_s - row[REPLIED_S])
    row[REPLIED_S] = replied_s
    _correct(row, size_bytes, factor * alone_s)
    least_s = min(row[LEAST_S], row[LEAST_BEFORE_S])
    row[LOG_DELAY] = min(row[LOG_DELAY], math.log((1 + row[NOW_JITTER] / 2) * least_s))


def learn_late(row: Row, sent_s: float, size_bytes: float, waited_s: float) -> None:
    """See ``LinkEstimator.observe_late``."""
    sending_s = 8 * size_bytes / math.exp(row[LOG_RATE])
    if LATE * waited_s > math.exp(row[LOG_DELAY]) + sending_s:
        learn(row, sent_s, size_bytes, waited_s, LATE)


def spread(row: Row, now_s: float) -> float:
    """Standard deviation of the bandwidth's natural logarithm in the second after ``now_s``."""
    idle_s = now_s - row[REPLIED_S] if row[REPLIED_S] > -math.inf else 0.0
    drifted = row[RATE_VARIANCE] + DRIFT * (max(idle_s, 0.0) + HORIZON_S / 2)
    return math.sqrt(min(drifted, LARGEST_VARIANCE) + SECOND_VARIANCE)


def _age(row: Row, seconds: float) -> None:
    """Let the link wander unseen."""
    row[RATE_VARIANCE] = min(row[RATE_VARIANCE] + DRIFT * seconds, LARGEST_VARIANCE)
    delay_variance = row[DELAY_VARIANCE] + DELAY_DRIFT * seconds
    row[DELAY_VARIANCE] = min(delay_variance, LARGEST_DELAY_VARIANCE)


def _correct(row: Row, size_bytes: float, alone_s: float) -> None:
    """The Kalman filter's update."""
    delay_s = math.exp(row[LOG_DELAY])
    sending_s = 8 * size_bytes / math.exp(row[LOG_RATE])
    sending = sending_s / (delay_s + sending_s)
    surprise = math.log(alone_s / (delay_s + sending_s))
    to_rate, to_delay, variance = _covariances(row, sending)
    if surprise > SECANT * math.sqrt(variance):
        # At a high rate size hardly matters, so by the tangent nothing could ever lower it.
        sending = (sending + 1 - delay_s / alone_s) / 2
        to_rate, to_delay, variance = _covariances(row, sending)
    deviation = math.sqrt(variance)
    clipped = max(-CLIP * deviation, min(surprise, CLIP * deviation))
    step = max(-LARGEST_STEP, min(to_rate / variance * clipped, LARGEST_STEP))
    log_rate = row[LOG_RATE] + step
    row[LOG_RATE] = max(math.log(LEAST_BPS), min(log_rate, math.log(MOST_BPS)))
    row[LOG_DELAY] += to_delay / variance * clipped
    row[RATE_VARIANCE] -= to_rate**2 / variance
    row[COVARIANCE] -= to_rate * to_delay / variance
    row[DELAY_VARIANCE] -= to_delay**2 / variance
    _learn_jitter(row, surprise, 1 - sending)


def _covariances(row: Row, sending: float) -> tuple[float, float, float]:
    """Of a frame's ln(seconds) with ln r, with ln D and with itself.

    Args:
        row: The filter.
        sending: The share of its time that depends on its size, 0..1:
            -d ln(seconds) / d ln r, and one less d ln(seconds) / d ln D.
    """
    waiting = 1 - sending
    to_rate = waiting * row[COVARIANCE] - sending * row[RATE_VARIANCE]
    to_delay = waiting * row[DELAY_VARIANCE] - sending * row[COVARIANCE]
    noise = (waiting * row[NOW_JITTER]) ** 2 + (sending * SCATTER) ** 2
    return to_rate, to_delay, waiting * to_delay - sending * to_rate + noise


def _learn_jitter(row: Row, surprise: float, waiting: float) -> None:
    """Follow the mean absolute deviation of times that are mostly delay."""
    if waiting > 1 / 3:
        deviation = math.sqrt(math.pi / 2) * min(abs(surprise), 3 * row[NOW_JITTER])
        jitter = row[NOW_JITTER] + JITTER_MEMORY * waiting * (deviation - row[NOW_JITTER])
        row[NOW_JITTER] = max(LEAST_JITTER, min(jitter, MOST_JITTER))


def _bound_delay(row: Row, replied_s: float, taken_s: float) -> None:
    """Keep the smallest round trip of this window and of the one before it."""
    if replied_s - row[WINDOW_FROM_S] > WINDOW_S:
        row[WINDOW_FROM_S], row[LEAST_BEFORE_S] = replied_s, row[LEAST_S]
        row[LEAST_S] = math.inf
    row[LEAST_S] = min(row[LEAST_S], taken_s)


def sending_ms(bandwidth_bps: float, spread: float, size_bytes: float) -> float:
    """What a link, of which that is believed, likely takes at most for so many bytes."""
    likely_bps = bandwidth_bps * math.exp(-spread * OPTIMISM_DEVIATIONS)
    return 8000 * size_bytes / likely_bps


def sendable_bytes(bandwidth_bps: float, spread: float, sending_s: float) -> float:
    """What a link, of which that is believed, likely carries in ``sending_s``."""
    likely_bps = bandwidth_bps * math.exp(spread * OPTIMISM_DEVIATIONS)
    return likely_bps * max(sending_s, 0.0) / 8
