"""The searches for a plan that EINet compares, to compare the exact one with.

    times of blocks and exits, expected confidences, stop times ─► search ─► plan: exits to run

EINet (ICDCS'23), slides "Search Engine" and "Hybrid Search". Letters: n exits ahead.
"""

from collections.abc import Mapping

import numpy as np
from numba import njit

from xpi_ray.elastic.planner import Ahead, Flags, Search, exact, worth
from xpi_ray.elastic.stop_times import StopTimes

MOST_ENUMERATED = 20
ENUMERATED_FIRST = 6  # "the first few"
RANDOM_PLANS = 256


def greedy(ahead: Ahead, stops: StopTimes) -> Flags:
    """Add the exit that raises the expectation most, until none does, (n,)."""
    plan = np.zeros(len(ahead.reach_ms), np.bool_)
    _add_greedily(plan, 0, ahead, stops)
    return plan


def hybrid(ahead: Ahead, stops: StopTimes) -> Flags:
    """Enumerate over the first exits, and add later ones greedily, (n,).

    The enumeration goes by later exits that a first greedy search found; that is chosen here, as
    the slides leave open what stands there.
    """
    plan = greedy(ahead, stops)
    first = min(ENUMERATED_FIRST, len(plan))
    _enumerate(plan, first, ahead, stops)
    _add_greedily(plan, first, ahead, stops)
    return plan


def enumeration(ahead: Ahead, stops: StopTimes) -> Flags:
    """The best of all 2^n plans, (n,).

    Raises:
        ValueError: They are too many.
    """
    count = len(ahead.reach_ms)
    if count > MOST_ENUMERATED:
        raise ValueError(f"expected at most {MOST_ENUMERATED} exits to enumerate, got {count}")
    plan = np.zeros(count, np.bool_)
    _enumerate(plan, count, ahead, stops)
    return plan


def random(ahead: Ahead, stops: StopTimes) -> Flags:
    """The best of some plans drawn at random, always the same ones, (n,): EINet's baseline."""
    count = len(ahead.reach_ms)
    plans = np.random.default_rng(count).random((RANDOM_PLANS, count)) < 0.5
    return max(plans, key=lambda plan: float(worth(plan, ahead, stops)))


SEARCHES: Mapping[str, Search] = {
    search.__name__: search for search in (exact, hybrid, greedy, enumeration, random)
}


@njit(cache=True)
def _add_greedily(plan: Flags, first: int, ahead: Ahead, stops: StopTimes) -> None:
    """Add exits from ``first`` on to the plan, in place, while that helps."""
    best, chosen = worth(plan, ahead, stops), first
    while chosen >= 0:
        chosen = -1
        for k in range(first, len(plan)):
            if not plan[k]:
                plan[k] = True
                value = worth(plan, ahead, stops)
                plan[k] = False
                if value > best:
                    best, chosen = value, k
        if chosen >= 0:
            plan[chosen] = True


@njit(cache=True)
def _enumerate(plan: Flags, count: int, ahead: Ahead, stops: StopTimes) -> None:
    """Set the plan's first ``count`` exits as is best with the others as they are."""
    best, chosen = -np.inf, 0
    for bits in range(2**count):
        for k in range(count):
            plan[k] = bits >> k & 1
        value = worth(plan, ahead, stops)
        if value > best:
            best, chosen = value, bits
    for k in range(count):
        plan[k] = chosen >> k & 1
