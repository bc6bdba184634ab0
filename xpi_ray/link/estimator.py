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
"""

import math
from statistics import NormalDist
from typing import NamedTuple

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
        self._log_rate = math.log(prior_bps)
        self._log_delay = math.log(prior_round_trip_s)
        self._rate_variance = LARGEST_VARIANCE
        self._delay_variance = LARGEST_DELAY_VARIANCE
        self._covariance = 0.0
        self._jitter = JITTER
        self._replied_s = -math.inf  # when the latest answer came
        self._window_s = -math.inf  # when the present window began
        self._least_s = self._least_before_s = math.inf  # round trips of this window and the last

    def observe(self, sent_s: float, size_bytes: int, taken_s: float) -> None:
        """Learn from a frame that was answered; in order of the answers.

        Args:
            sent_s: When it was sent.
            size_bytes: Its size, at least 1.
            taken_s: From then until its answer, less the cloud's own time. Left out if not
                above 0, which the difference of two clocks can be.
        """
        self._observe(sent_s, size_bytes, taken_s, 1.0)

    def _observe(self, sent_s: float, size_bytes: int, taken_s: float, factor: float) -> None:
        """Learn from a frame that was on its way so long; alone it takes ``factor`` times that."""
        replied_s = sent_s + taken_s
        if not taken_s > 0 or replied_s <= self._replied_s:
            return  # overtaken: what it waited for is not known
        self._bound_delay(replied_s, taken_s)
        # The answer before left the link D earlier; until then this frame had to wait.
        alone_s = replied_s - max(sent_s, self._replied_s - math.exp(self._log_delay))
        if self._replied_s > -math.inf:
            self._age(replied_s - self._replied_s)
        self._replied_s = replied_s
        self._correct(size_bytes, factor * alone_s)
        least_s = min(self._least_s, self._least_before_s)
        self._log_delay = min(self._log_delay, math.log((1 + self._jitter / 2) * least_s))

    def observe_late(self, sent_s: float, size_bytes: int, waited_s: float) -> None:
        """Learn from a frame whose answer had not come after ``waited_s``, if that is a surprise.

        It would have taken longer, how much is not known. Without this a link that became too slow
        for any answer to come in time would be believed quick for ever.
        """
        sending_s = 8 * size_bytes / math.exp(self._log_rate)
        if LATE * waited_s > math.exp(self._log_delay) + sending_s:
            self._observe(sent_s, size_bytes, waited_s, LATE)

    def estimate(self, now_s: float) -> LinkEstimate:
        """What is believed of the second after ``now_s``, which may lie before the last answer."""
        idle_s = now_s - self._replied_s if self._replied_s > -math.inf else 0.0
        drifted = self._rate_variance + DRIFT * (max(idle_s, 0.0) + HORIZON_S / 2)
        return LinkEstimate(
            math.exp(self._log_rate),
            math.exp(self._log_delay),
            math.sqrt(min(drifted, LARGEST_VARIANCE) + SECOND_VARIANCE),
        )

    def _age(self, seconds: float) -> None:
        """Let the link wander unseen."""
        self._rate_variance = min(self._rate_variance + DRIFT * seconds, LARGEST_VARIANCE)
        delay_variance = self._delay_variance + DELAY_DRIFT * seconds
        self._delay_variance = min(delay_variance, LARGEST_DELAY_VARIANCE)

    def _correct(self, size_bytes: int, alone_s: float) -> None:
        """The Kalman filter's update."""
        delay_s = math.exp(self._log_delay)
        sending_s = 8 * size_bytes / math.exp(self._log_rate)
        sending = sending_s / (delay_s + sending_s)
        surprise = math.log(alone_s / (delay_s + sending_s))
        to_rate, to_delay, variance = self._covariances(sending)
        if surprise > SECANT * math.sqrt(variance):
            # At a high rate size hardly matters, so by the tangent nothing could ever lower it.
            sending = (sending + 1 - delay_s / alone_s) / 2
            to_rate, to_delay, variance = self._covariances(sending)
        deviation = math.sqrt(variance)
        clipped = max(-CLIP * deviation, min(surprise, CLIP * deviation))
        step = max(-LARGEST_STEP, min(to_rate / variance * clipped, LARGEST_STEP))
        log_rate = self._log_rate + step
        self._log_rate = max(math.log(LEAST_BPS), min(log_rate, math.log(MOST_BPS)))
        self._log_delay += to_delay / variance * clipped
        self._rate_variance -= to_rate**2 / variance
        self._covariance -= to_rate * to_delay / variance
        self._delay_variance -= to_delay**2 / variance
        self._learn_jitter(surprise, 1 - sending)

    def _covariances(self, sending: float) -> tuple[float, float, float]:
        """Of a frame's ln(seconds) with ln r, with ln D and with itself.

        Args:
            sending: The share of its time that depends on its size, 0..1:
                -d ln(seconds) / d ln r, and one less d ln(seconds) / d ln D.
        """
        waiting = 1 - sending
        to_rate = waiting * self._covariance - sending * self._rate_variance
        to_delay = waiting * self._delay_variance - sending * self._covariance
        noise = (waiting * self._jitter) ** 2 + (sending * SCATTER) ** 2
        return to_rate, to_delay, waiting * to_delay - sending * to_rate + noise

    def _learn_jitter(self, surprise: float, waiting: float) -> None:
        """Follow the mean absolute deviation of times that are mostly delay."""
        if waiting > 1 / 3:
            deviation = math.sqrt(math.pi / 2) * min(abs(surprise), 3 * self._jitter)
            jitter = self._jitter + JITTER_MEMORY * waiting * (deviation - self._jitter)
            self._jitter = max(LEAST_JITTER, min(jitter, MOST_JITTER))

    def _bound_delay(self, replied_s: float, taken_s: float) -> None:
        """Keep the smallest round trip of this window and of the one before it."""
        if replied_s - self._window_s > WINDOW_S:
            self._window_s, self._least_before_s = replied_s, self._least_s
            self._least_s = math.inf
        self._least_s = min(self._least_s, taken_s)
