from pathlib import Path

import numpy as np
import pytest

from benchmarks import policies
from rl.contest import by_deadline, fixed
from rl.task import make_task
from xpi_ray.bundle import Bundle
from xpi_ray.errors import PlanError
from xpi_ray.link.traces import Trace
from xpi_ray.policies.plan import SLO_CLASSES
from xpi_ray.simulation.cluster import utilities
from xpi_ray.simulation.draw import Sources

DURATION_S = 5.0


@pytest.fixture(scope="module")
def task():
    """The packaged bundle's, with a steady link."""
    steady = Trace("steady", 1.0, np.full(10, 2e6))
    return make_task(Bundle.load(), SLO_CLASSES, Sources([steady], [np.ones(60)]))


def test_the_best_fixed_plan_is_no_worse_than_any_other(task):
    """For every class by itself, over all the sites that it was chosen on."""
    sites = policies.draw(task, task.sources.traces[0], 0, 2, DURATION_S)
    best = policies.best_fixed(task, sites)
    weights, classes = task.viewer.weights, len(by_deadline(task))

    def worth(decisions):
        return np.mean([utilities(fixed(task, site, decisions), weights).mean() for site in sites])

    for candidate in task.viewer.candidates[::13]:
        # Classes share machines, so choosing each by itself is not quite the best of all.
        assert worth(best) >= worth([candidate.decision] * classes) - 0.02


def test_all_sides_meet_the_same_requests(task):
    """A contest's sites and sides are the same whenever it is held."""
    sides = policies.policies(Bundle.load(), task, {})
    sites = policies.draw(task, task.sources.traces[0], 1, 1, DURATION_S)
    again = policies.draw(task, task.sources.traces[0], 1, 1, DURATION_S)
    assert (sites[0].arrivals == again[0].arrivals).all()
    first, second = (
        policies.contest(task, sides, drawn, DURATION_S, lambda: None) for drawn in (sites, again)
    )
    assert first == second
    assert {name for name, _ in first} == {"greedy", "forecast", "fixed", "static", "oracle"}
    assert len({each[0]["requests"] for each in first.values()}) == 1
    rewards = {name: each[0]["reward"] for (name, _), each in first.items()}
    assert rewards["oracle"] >= max(rewards["static"], rewards["greedy"])


def test_a_missing_policy_file_is_told(task):
    """The folder of a training that never ran."""
    with pytest.raises(PlanError, match="cannot be read"):
        policies.policies(Bundle.load(), task, {"ppo": [Path("nowhere")]})
