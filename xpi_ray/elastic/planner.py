"""Which exits to run when a request may be stopped at any time.

    times of blocks and exits, expected confidences, stop times ─► exact ─► plan: exits to run

After block k's features are there, its exit may run, which takes time and leaves an answer in hand,
or be skipped, which gets deeper sooner. The answer at the stop is that of the last exit which ran.
A plan is as good as the confidence in hand at the stop, in expectation (EINet, ICDCS'23, "accuracy
expectation"). With T_k the time at which an exit k of the plan ends, c_k its confidence, c_k' that
of the plan's exit before it, and R(t) the chance that the request still runs at t, that is

    held + Σ_k (c_k - c_k') · R(T_k)

Letters: n exits ahead, behind those that ran or were skipped already.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xpi_ray.elastic.stop_times import StopTimes, chance

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

START = -1  # the place before the first exit
FIRST_LABELS = 256


class Ahead(NamedTuple):
    """What may still run of one request, and what that would be worth."""

    reach_ms: Floats
    """When each block's features would be there if no exit ahead ran, since the request began,
    ascending, (n,)."""
    exit_ms: Floats
    """What each exit takes, above 0, infinite where a block has none, (n,)."""
    confidence: Floats
    """The chance, 0..1, that its answer is right, as expected now, (n,)."""
    held: float
    """Likewise of the answer in hand; 0 if there is none."""


Search = Callable[[Ahead, StopTimes], Flags]
"""Finds a plan, (n,)."""


def expectation(plan: Flags, ahead: Ahead, stops: StopTimes) -> float:
    """The confidence in hand at the stop that a plan, (n,), lets expect.

    Of a request that begins. For one that runs already the conditional expectation differs from it
    by a factor and a term that no plan changes.
    """
    return float(worth(plan, ahead, stops))


def exact(ahead: Ahead, stops: StopTimes) -> Flags:
    """The plan of the highest expectation, (n,): dynamic programming over exits and elapsed time.

    Among the best plans there is one whose confidences rise: a plan is no worse without an exit
    that lowers what is in hand. So what can follow an exit is worth no more the later that exit
    ends, and the loss by ending later is at most the highest gain still ahead times the fall of R.
    Of two ways to one exit, the one that is later and worth no more leads to no better plan, nor
    does one that is sooner by less than it is worth less.
    """
    return _exact(ahead, stops)


@njit(cache=True)
def worth(plan: Flags, ahead: Ahead, stops: StopTimes) -> float:
    """``expectation``, compiled."""
    spent_ms, value, hand = 0.0, ahead.held, ahead.held
    for k in range(len(plan)):
        if plan[k]:
            spent_ms += ahead.exit_ms[k]
            if spent_ms == np.inf:
                break
            value += (ahead.confidence[k] - hand) * chance(ahead.reach_ms[k] + spent_ms, stops)
            hand = ahead.confidence[k]
    return value


@njit(cache=True)
def _exact(ahead: Ahead, stops: StopTimes) -> Flags:
    """Label setting: a label is a way to an exit, by the time spent on exits and its worth."""
    count = len(ahead.reach_ms)
    highest, soonest_ms = _bounds(ahead)
    steepest = _steepest(stops)
    spent_ms, value = np.empty(FIRST_LABELS), np.empty(FIRST_LABELS)
    place, parent = np.empty(FIRST_LABELS, np.int64), np.empty(FIRST_LABELS, np.int64)
    sibling = np.empty(FIRST_LABELS, np.int64)  # the next label at the same place
    newest = np.full(count + 1, -1)  # of the labels at each place, the start's first
    spent_ms[0], value[0], place[0], parent[0], sibling[0] = 0.0, ahead.held, START, -1, -1
    newest[0], labels, best = 0, 1, 0
    for at in range(START, count - 1):
        hand = ahead.held if at == START else ahead.confidence[at]
        most_lost = steepest * (highest[at + 1] - hand)  # in each ms, by whatever follows
        for label in _undominated(newest[at + 1], sibling, spent_ms, value, most_lost):
            for k in range(at + 1, count):
                gain, spent = ahead.confidence[k] - hand, spent_ms[label] + ahead.exit_ms[k]
                if gain <= 0 or spent == np.inf:
                    continue
                worth_k = value[label] + gain * chance(ahead.reach_ms[k] + spent, stops)
                rest = 0.0
                if k < count - 1 and highest[k + 1] > ahead.confidence[k]:
                    rest = highest[k + 1] - ahead.confidence[k]
                    rest *= chance(soonest_ms[k + 1] + spent, stops)
                if worth_k + rest <= value[best]:
                    continue
                if labels == len(value):
                    spent_ms, value = _doubled(spent_ms), _doubled(value)
                    place, parent, sibling = _doubled(place), _doubled(parent), _doubled(sibling)
                spent_ms[labels], value[labels] = spent, worth_k
                place[labels], parent[labels], sibling[labels] = k, label, newest[k + 1]
                newest[k + 1] = labels
                if worth_k > value[best]:
                    best = labels
                labels += 1
    plan = np.zeros(count, np.bool_)
    while place[best] != START:
        plan[place[best]] = True
        best = parent[best]
    return plan


@njit(cache=True)
def _undominated(
    label: int, sibling: NDArray[np.int64], spent_ms: Floats, value: Floats, most_lost: float
) -> NDArray[np.int64]:
    """Those of the labels at one place, beginning with ``label``, that may lead to the best."""
    count, each = 0, label
    while each >= 0:
        count, each = count + 1, sibling[each]
    labels = np.empty(count, np.int64)
    for number in range(count):  # sorted by the time spent
        low, each = number, label
        while low > 0 and spent_ms[labels[low - 1]] > spent_ms[each]:
            labels[low] = labels[low - 1]
            low -= 1
        labels[low], label = each, sibling[each]
    kept, most = 0, -np.inf
    for number in range(count):  # none sooner is worth as much
        if value[labels[number]] > most:
            labels[kept], most, kept = labels[number], value[labels[number]], kept + 1
    first, most = kept, -np.inf
    for number in range(kept - 1, -1, -1):  # none later makes up for its time
        each = labels[number]
        worth_now = value[each] - most_lost * spent_ms[each]
        if worth_now > most:
            most, first = worth_now, first - 1
            labels[first] = each
    return labels[first:kept]


@njit(cache=True)
def _bounds(ahead: Ahead) -> tuple[Floats, Floats]:
    """From each exit on: the highest confidence, and when the first exit could end, (n,) each."""
    highest, soonest_ms = ahead.confidence.copy(), ahead.reach_ms + ahead.exit_ms
    for k in range(len(highest) - 2, -1, -1):
        highest[k] = max(highest[k], highest[k + 1])
        soonest_ms[k] = min(soonest_ms[k], soonest_ms[k + 1])
    return highest, soonest_ms


@njit(cache=True)
def _steepest(stops: StopTimes) -> float:
    """The most that R falls in a millisecond."""
    falls = -np.diff(stops.running) / np.diff(stops.knots_ms)
    return float(falls.max())


@njit(cache=True)
def _doubled(values: NDArray[Any]) -> NDArray[Any]:
    longer = np.empty(2 * len(values), values.dtype)
    longer[: len(values)] = values
    return longer
