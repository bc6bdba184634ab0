"""Draws sites at random: machine, link, images, load and deadlines, each from a stated range.

traces, recordings, seed ─► draw_site ─► Site ─► Cluster
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xpi_ray.link.traces import Trace
from xpi_ray.simulation.arrivals import Times, bursts, poisson, recorded
from xpi_ray.simulation.cluster import Setting, Site

EDGES_MS = (15.0, 150.0)
"""Time that all blocks take at the edge; log-uniform."""
LOADS = (0.1, 1.2)
"""Time that all blocks of all requests would take at the edge, per second; log-uniform."""
ROUND_TRIPS_MS = (2.0, 80.0)
"""Log-uniform."""
SCALES = (0.2, 1.5)
"""Of a trace's capacity; log-uniform."""
HOP_MS = 1.5
"""Mean of a call to the cloud on one machine, beside link and queue; gamma with ``HOP_SHAPE``."""
HOP_SHAPE = 6.0
SCATTER = 0.1  # standard deviation of the logarithm of a request's times on a machine
SPELL_S, BETWEEN_S = 10.0, 40.0  # mean length of a machine's slow spell, and of the time between
SPELL_FACTORS = (1.2, 2.5)
EASES = (0.5, 2.0)
"""Power of an evenly drawn rank by ease: below 1 a site sees more hard images, above it more easy
ones; log-uniform."""
MOST_RPS = 150.0
DEADLINE_MIXES = ((100.0, 500.0), (30.0, 150.0), (50.0, 250.0), (20.0, 1_000.0))
"""Bounds between which deadlines are uniform; the first is the Xpi paper's."""


@dataclass(frozen=True)
class Sources:
    """What sites are drawn from."""

    traces: Sequence[Trace]
    recordings: Sequence[Times]
    """Requests per second."""


def draw_site(
    setting: Setting,
    sources: Sources,
    duration_s: float,
    rng: np.random.Generator,
    trace: Trace | None = None,
) -> Site:
    """One site.

    Args:
        setting: Images that requests bring, and block times that slow-downs are relative to.
        sources: Links and arrivals.
        duration_s: Length of the run.
        rng: Source of chance; the same state gives the same site.
        trace: The link, if it is not to be drawn.
    """
    edge_ms = _log_uniform(EDGES_MS, rng)
    rate_rps = min(1000 * _log_uniform(LOADS, rng) / edge_ms, MOST_RPS)
    times = _draw_arrivals(rate_rps, duration_s, sources.recordings, rng)
    count = len(times)
    if trace is None:
        trace = sources.traces[int(rng.integers(len(sources.traces)))]
    low, high = DEADLINE_MIXES[rng.integers(len(DEADLINE_MIXES))]
    slowdown = edge_ms / sum(setting.profile.block_ms)
    return Site(
        arrivals=times,
        samples=_draw_images(setting.by_ease, count, rng),
        deadlines_ms=rng.uniform(low, high, count),
        edge_factors=machine_factors(times, duration_s, rng),
        cloud_factors=machine_factors(times, duration_s, rng),
        hops_ms=rng.gamma(HOP_SHAPE, HOP_MS / HOP_SHAPE, count),
        trace=trace,
        trace_shift_s=rng.uniform(0, trace.duration_s),
        trace_scale=_log_uniform(SCALES, rng),
        round_trip_ms=_log_uniform(ROUND_TRIPS_MS, rng),
        edge_slowdown=slowdown,
        encode_slowdown=slowdown,
    )


def _draw_images(
    by_ease: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """What a site's camera sees: more of the easy images, or more of the hard ones."""
    ranks = rng.random(count) ** _log_uniform(EASES, rng)
    return by_ease[(len(by_ease) * ranks).astype(np.int64)]


def machine_factors(times: Times, duration_s: float, rng: np.random.Generator) -> Times:
    """How many times longer than usual a machine's work takes at each time: noise, slow spells.

    A machine that is shared has spells of some seconds in which others take part of it.
    """
    edges: list[float] = [rng.exponential(BETWEEN_S)]
    factors = [1.0]
    while edges[-1] < duration_s:
        edges += [edges[-1] + rng.exponential(SPELL_S)]
        edges += [edges[-1] + rng.exponential(BETWEEN_S)]
        factors += [float(rng.uniform(*SPELL_FACTORS)), 1.0]
    spells = np.array(factors)[np.searchsorted(1000 * np.array(edges), times)]
    factor: Times = spells * np.exp(rng.normal(0.0, SCATTER, len(times)))
    return factor


def _draw_arrivals(
    rate_rps: float, duration_s: float, recordings: Sequence[Times], rng: np.random.Generator
) -> Times:
    kind = int(rng.integers(2 + len(recordings)))
    if kind == 0:
        return poisson(rate_rps, duration_s, rng)
    if kind == 1:
        return bursts(rate_rps, duration_s, rng)
    return recorded(recordings[kind - 2], rate_rps, duration_s, rng)


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))
