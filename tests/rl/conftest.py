"""A small task: a make-believe network, three classes, two links, a few periods."""

import numpy as np
import pytest

from rl.task import Task
from xpi_ray.link.traces import Trace
from xpi_ray.policies.base import Decision
from xpi_ray.policies.catalogue import candidates
from xpi_ray.policies.learned import Viewer
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.utility import Weights
from xpi_ray.profiles.table import Profile
from xpi_ray.simulation.cluster import Setting
from xpi_ray.simulation.draw import Sources

THRESHOLDS = ((0.2, 0.2, 0.2, 1.0), (0.5, 0.5, 0.5, 1.0), (0.8, 0.8, 0.8, 1.0))


@pytest.fixture(scope="session")
def task(make_outcomes):
    """Four periods of half a second; the classes are not in the order of their deadlines."""
    outcomes = make_outcomes(0)
    profile = Profile(
        machine="a toaster", threads=1, block_ms=(1.0, 2.0, 3.0, 4.0), encode_ms=0.5, decode_ms=0.25
    )
    classes = tuple(
        SloClass(name=name, deadline_ms=ms) for name, ms in (("b", 80), ("a", 20), ("c", 200))
    )
    plans = candidates(outcomes, THRESHOLDS)
    setting = Setting(profile, outcomes, classes, Decision(2, THRESHOLDS[0], 0))
    rng = np.random.default_rng(0)
    traces = [Trace("one", 0.1, rng.exponential(1e5, 300)), Trace("two", 1.0, np.array([5e5]))]
    return Task(
        setting=setting,
        viewer=Viewer(profile, plans, Weights()),
        kept=tuple(range(len(plans))),
        sources=Sources(traces, [np.ones(100)]),
        prior=Observation(),
        period_s=0.5,
        periods=4,
    )
