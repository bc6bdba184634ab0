"""When requests arrive: at random, in bursts, or as recorded.

rate or recording, seed ─► times ─► Site ─► Cluster
"""

import csv
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xpi_ray.errors import DataError
from xpi_ray.link.traces import MAX_DURATION_S

Times = NDArray[np.float64]
"""Milliseconds since the run began, rising."""

BURST_FACTOR = 3.0  # of the mean rate, in a burst
BURST_S, QUIET_S = 2.0, 6.0  # mean lengths
MAX_ROWS = 10_000_000


def varying(
    rate_rps: Callable[[Times], Times], most_rps: float, duration_s: float, rng: np.random.Generator
) -> Times:
    """A Poisson process whose rate varies, by thinning (Lewis and Shedler, 1979).

    Args:
        rate_rps: Rate at each time, requests per second, at most ``most_rps``.
        most_rps: Its upper bound.
        duration_s: Length of the run.
        rng: Source of chance.
    """
    count = rng.poisson(most_rps * duration_s)
    times = np.sort(rng.uniform(0, 1000 * duration_s, count))
    return times[rng.uniform(0, most_rps, count) < rate_rps(times)]


def poisson(rate_rps: float, duration_s: float, rng: np.random.Generator) -> Times:
    """Arrivals at random at one rate."""
    return varying(lambda times: np.full(len(times), rate_rps), rate_rps, duration_s, rng)


def bursts(rate_rps: float, duration_s: float, rng: np.random.Generator) -> Times:
    """Bursts of ``BURST_FACTOR`` times the mean rate, with quiet between (a two-state MMPP)."""
    lengths: list[float] = []
    while sum(lengths) < duration_s:
        lengths += [rng.exponential(QUIET_S), rng.exponential(BURST_S)]
    edges = 1000 * np.cumsum(lengths)
    share = BURST_S / (BURST_S + QUIET_S)
    quiet_rps = rate_rps * (1 - share * BURST_FACTOR) / (1 - share)

    def rate(times: Times) -> Times:
        in_burst = np.searchsorted(edges, times) % 2 == 1
        return np.where(in_burst, BURST_FACTOR * rate_rps, quiet_rps)

    return varying(rate, BURST_FACTOR * rate_rps, duration_s, rng)


def recorded(counts: Times, rate_rps: float, duration_s: float, rng: np.random.Generator) -> Times:
    """The shape of recorded counts per second at another mean rate, from a second drawn at random.

    Args:
        counts: Requests in each second.
        rate_rps: The mean rate over the part that is replayed.
        duration_s: Length of the run.
        rng: Source of chance.

    Parts in which the recording has gaps over half the time are not drawn.

    Raises:
        DataError: All parts of this length have.
    """
    seconds = int(np.ceil(duration_s))
    looped = np.resize(counts, len(counts) + seconds - 1)
    busy = np.convolve(looped > 0, np.ones(seconds), "valid")
    starts = np.flatnonzero(busy > seconds / 2)
    if not len(starts):
        raise DataError(
            f"the recording has gaps over half the time in all parts of {seconds} s; use another"
        )
    first = int(rng.choice(starts))
    part = looped[first : first + seconds]
    rates = rate_rps * part / part.mean()

    def rate(times: Times) -> Times:
        now: Times = rates[np.minimum((times / 1000).astype(np.intp), seconds - 1)]
        return now

    return varying(rate, float(rates.max()), duration_s, rng)


def read_counts(path: Path) -> Times:
    """Requests per second from a recording: a count a line, or a CSV with a column TIMESTAMP.

    Raises:
        DataError: The file is missing, of neither form, or holds counts that are none.
    """
    try:
        if path.suffix == ".csv":
            return _timestamps(path)
        counts = np.array(path.read_text().split(), np.float64)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, csv.Error) as err:
        raise DataError(
            f"{path} is no recording of arrivals ({err!r}); expected a count a line, or a CSV with "
            "a column TIMESTAMP"
        ) from err
    if not len(counts) or not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise DataError(f"{path} must hold counts of at least 0, one a line; check the file")
    return counts


def _timestamps(path: Path) -> Times:
    with path.open(newline="") as file:
        texts = [row["TIMESTAMP"] for row in islice(csv.DictReader(file), MAX_ROWS)]
    moments = [datetime.fromisoformat(text[:26]).timestamp() for text in texts]
    if not moments:
        raise ValueError("no rows")
    seconds = np.array(moments) - min(moments)
    if seconds.max() > MAX_DURATION_S:
        raise ValueError(f"it lasts longer than {MAX_DURATION_S} s")
    return np.bincount(seconds.astype(np.intp)).astype(np.float64)
