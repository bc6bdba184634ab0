"""A new policy and the present one, tried on the sites as they were of late.

SiteLog… ─► simulated sites ─► contest.drive with each policy ─► Gain
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rl.contest import drive
from rl.lesson import SiteLog
from rl.task import Task
from xpi_ray.errors import DataError
from xpi_ray.link.traces import Trace
from xpi_ray.policies.base import Policy
from xpi_ray.policies.observation import Observation
from xpi_ray.simulation.arrivals import varying
from xpi_ray.simulation.cluster import Site, utilities
from xpi_ray.simulation.draw import HOP_MS, HOP_SHAPE, MOST_RPS, SCATTER

SITES, SEEDS = 4, 6  # at most so many sites, each so many times
LEAST_PERIODS = 10
LEAST_RPS = 0.5


class Gain(NamedTuple):
    """How much more a request is worth with the new policy."""

    mean: float
    """Utility."""
    error: float
    """Standard error of the mean."""

    @property
    def sure(self) -> bool:
        """Whether the new policy is better by more than one standard error."""
        return self.mean > self.error


def rehearse(task: Task, sites: Sequence[SiteLog], new: Policy, present: Policy) -> Gain:
    """Drive both over the same simulated sites.

    Raises:
        DataError: No site has been seen for long enough.
    """
    known = [site for site in sites if len(site.observations) >= LEAST_PERIODS]
    known = [site for site in known if len(site.deadlines_ms)][:SITES]
    if not known:
        raise DataError(f"expected a site with requests in {LEAST_PERIODS} periods, got none yet")
    gains = []
    for number, log in enumerate(known):
        for seed in range(SEEDS):
            site = replayed(log, task, np.random.default_rng([number, seed]))
            if not len(site.arrivals):
                continue
            duration_s = len(log.observations) * task.period_s
            of_new, of_present = (
                utilities(drive(task, site, policy, duration_s), task.viewer.weights).mean()
                for policy in (new, present)
            )
            gains.append(of_new - of_present)
    if len(gains) < 2:
        raise DataError("expected requests in the rehearsal, got none")
    return Gain(float(np.mean(gains)), float(np.std(gains, ddof=1) / np.sqrt(len(gains))))


def replayed(log: SiteLog, task: Task, rng: np.random.Generator) -> Site:
    """A simulated site whose load, link and machines go as they were seen to, period by period."""
    seen = {
        name: np.array([getattr(observation, name) for observation in log.observations])
        for name in Observation.model_fields
    }
    last = len(log.observations) - 1
    rates_rps = seen["arrivals_rps"].clip(LEAST_RPS, MOST_RPS)

    def period(times_ms: np.ndarray) -> np.ndarray:
        return np.minimum((times_ms / (1000 * task.period_s)).astype(np.intp), last)

    times = varying(
        lambda at_ms: rates_rps[period(at_ms)], rates_rps.max(), (last + 1) * task.period_s, rng
    )
    count, at = len(times), period(times)
    slowdown = float(np.median(seen["edge_slowdown"]))
    return Site(
        arrivals=times,
        samples=rng.integers(task.setting.num_samples, size=count),
        deadlines_ms=rng.choice(np.array(log.deadlines_ms), count),
        edge_factors=seen["edge_slowdown"][at] / slowdown * np.exp(rng.normal(0, SCATTER, count)),
        cloud_factors=seen["cloud_slowdown"][at] * np.exp(rng.normal(0, SCATTER, count)),
        hops_ms=rng.gamma(HOP_SHAPE, HOP_MS / HOP_SHAPE, count),
        trace=Trace("of late", task.period_s, task.period_s * seen["link_bps"]),
        round_trip_ms=max(float(np.median(seen["round_trip_ms"])) - HOP_MS, 0.0),
        edge_slowdown=slowdown,
    )
