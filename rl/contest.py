"""A site run under a policy, under plans that never change, and under the best at all times.

Task, Site ─► drive | fixed | oracle ─► the requests' rows ─► benchmarks, validation
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rl.task import Task
from xpi_ray.policies.base import Decision, Policy
from xpi_ray.policies.learned import FEATURES, GAP, SHORTLIST, Learned, Viewer
from xpi_ray.policies.observation import Watch
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.utility import Weights
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import Cluster, Site, answered_in_time, seen, utilities

TAIL_S = 1.0  # beyond an interval, in which its last requests end

Rows = NDArray[np.float64]


def drive(task: Task, site: Site, policy: Policy, duration_s: float) -> Rows:
    """Let a policy decide every period, as the scheduler does; returns the requests' rows."""
    cluster = Cluster(task.setting, [site])
    watch = Watch(task.setting.profile, task.prior)
    classes = by_deadline(task)
    for _ in range(int(duration_s / task.period_s)):
        rows = cluster.advance(cluster.now_ms + 1000 * task.period_s)
        observation = watch.observe(seen(rows), task.period_s)
        cluster.set_plans(0, [policy.decide(observation, slo) for slo in classes])
    cluster.advance(np.inf)
    return cluster.requests


def untrained(viewer: Viewer) -> Learned:
    """Goes by the forecast alone: its one layer reads what each plan lacks to the best."""
    weights = np.zeros((SHORTLIST, FEATURES), np.float32)
    weights[np.arange(SHORTLIST), np.arange(FEATURES)[GAP]] = 1
    return Learned(viewer, [(weights, np.zeros(SHORTLIST, np.float32))])


def fixed(task: Task, site: Site, decisions: Sequence[Decision]) -> Rows:
    """The same plans from beginning to end, one for each class."""
    cluster = Cluster(task.setting, [site])
    cluster.set_plans(0, decisions)
    cluster.advance(np.inf)
    return cluster.requests


def oracle(task: Task, site: Site, duration_s: float) -> Rows:
    """In every period the best plan for each class, found by trying all with full knowledge.

    Every candidate is simulated from this very moment, with the requests, labels and link that are
    to come; classes take turns, each given the others' plans. What is best for an interval is
    chosen for it: no policy knows as much, so this is the ceiling.
    """
    cluster = Cluster(task.setting, [site])
    classes = by_deadline(task)
    plans = [task.viewer.candidates[0].decision] * len(classes)
    for _ in range(int(duration_s / task.period_s)):
        begins_ms = cluster.now_ms
        ends_ms = begins_ms + 1000 * task.period_s
        arrived = cluster.arriving(begins_ms, ends_ms)
        present = np.unique(cluster.requests[arrived, at.SLO]).astype(int)
        best_worth = -np.inf
        for number in present:
            for candidate in task.viewer.candidates:
                tried = [*plans[:number], candidate.decision, *plans[number + 1 :]]
                trial = cluster.copy()
                trial.set_plans(0, tried)
                trial.advance(ends_ms + 1000 * TAIL_S)
                rows = trial.requests[arrived]
                worth = float(utilities(rows, task.viewer.weights).sum())
                if worth > best_worth:
                    best_worth, plans = worth, tried
        cluster.set_plans(0, plans)
        cluster.advance(ends_ms)
    cluster.advance(np.inf)
    return cluster.requests


def by_deadline(task: Task) -> list[SloClass]:
    """The task's classes as a cluster counts them."""
    return sorted(task.setting.classes, key=lambda slo: slo.deadline_ms)


def facts(rows: Rows, weights: Weights) -> dict[str, float]:
    """What counts of requests that all have ended."""
    in_time = answered_in_time(rows)
    return {
        "requests": len(rows),
        "reward": float(utilities(rows, weights).mean()),
        "deadline_satisfaction": float(in_time.mean()),
        "accuracy": float(rows[in_time, at.CORRECT].mean()) if in_time.any() else 0.0,
        "edge_ms": float((rows[:, at.EDGE_MS] + rows[:, at.ENCODE_MS]).mean()),
    }
