import numpy as np
import pytest

from rl.lesson import SiteLog
from rl.rehearsal import Gain, rehearse, replayed
from rl.task import Task
from xpi_ray.errors import DataError
from xpi_ray.policies.base import Decision
from xpi_ray.policies.learned import Viewer
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.static import Static
from xpi_ray.policies.utility import Weights
from xpi_ray.simulation.cluster import Setting
from xpi_ray.simulation.draw import HOP_MS, Sources

CLASSES = (SloClass(name="tight", deadline_ms=20), SloClass(name="relaxed", deadline_ms=300))


@pytest.fixture(scope="module")
def task(bundle):
    """Of the small bundle."""
    profile, candidates = bundle.manifest.profiles["default"], bundle.candidates()
    static = Decision(4, (0.0,) * 4, 0)
    outcomes = bundle.levelled()
    setting = Setting(profile, outcomes, CLASSES, static, reroutes=False)
    viewer = Viewer(profile, candidates, Weights())
    return Task(setting, viewer, (), Sources([], []), Observation())


def observations(count, **values):
    """What was seen in so many periods."""
    facts = {"link_bps": 1e6, "arrivals_rps": 20.0, **values}
    return [Observation(**facts) for _ in range(count)]


def test_a_replayed_site_is_as_it_was(task):
    """Load, link, machines and deadlines are those that were observed, period by period."""
    quiet = observations(20, arrivals_rps=5, edge_slowdown=2, round_trip_ms=30)
    busy = observations(20, arrivals_rps=50, edge_slowdown=6, round_trip_ms=30, link_bps=4e6)
    log = SiteLog(quiet + busy, [50.0, 200.0])
    site = replayed(log, task, np.random.default_rng(0))
    early = site.arrivals < 20_000
    assert early.sum() == pytest.approx(100, abs=35)
    assert (~early).sum() == pytest.approx(1_000, abs=110)
    assert site.arrivals.max() < 40_000
    slow = site.edge_slowdown * site.edge_factors
    assert np.median(slow[early]) == pytest.approx(2, rel=0.1)
    assert np.median(slow[~early]) == pytest.approx(6, rel=0.1)
    assert site.trace.mean_bps(0, 20) == pytest.approx(1e6)
    assert site.trace.mean_bps(20, 40) == pytest.approx(4e6)
    assert site.round_trip_ms + HOP_MS == pytest.approx(30)
    assert set(site.deadlines_ms) == {50.0, 200.0}


def test_the_better_policy_gains_what_the_other_loses(task):
    """Plans that answer in time beat plans that never do; roles exchanged, the gain is negative."""
    log = SiteLog(observations(12, edge_slowdown=4, link_bps=2e4), [40.0, 80.0])
    stay = Static(Decision(4, (1.0,) * 4, 0))
    cross = Static(Decision(0, (0.0,) * 4, 0))
    gain, loss = (rehearse(task, [log], *pair) for pair in ((stay, cross), (cross, stay)))
    assert gain.sure
    assert not loss.sure
    assert (loss.mean, loss.error) == pytest.approx((-gain.mean, gain.error))


def test_a_policy_gains_nothing_over_itself(task):
    """Pairs see the same requests, so that nothing is left to chance."""
    log = SiteLog(observations(10), [100.0])
    policy = Static(Decision(2, (0.5,) * 4, 1))
    gain = rehearse(task, [log], policy, policy)
    assert gain == Gain(0.0, 0.0)
    assert not gain.sure


@pytest.mark.parametrize(
    "sites", [[], [SiteLog(observations(9), [50.0])], [SiteLog(observations(20), [])]]
)
def test_a_rehearsal_needs_a_site_that_is_known(task, sites):
    """One with some periods behind it, and requests."""
    policy = Static(Decision(2, (0.5,) * 4, 1))
    with pytest.raises(DataError, match="expected a site"):
        rehearse(task, sites, policy, policy)
