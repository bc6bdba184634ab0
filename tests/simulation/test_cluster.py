from dataclasses import replace

import numpy as np
import pytest

from xpi_ray.errors import DataError, PlanError
from xpi_ray.policies.base import Decision
from xpi_ray.policies.keeper import PlanKeeper
from xpi_ray.policies.observation import SEEN, Observation, Watch
from xpi_ray.policies.plan import Plan
from xpi_ray.policies.utility import Weights
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import Cluster, answered_in_time, seen, utilities

NEVER = (0.0,) * 4


@pytest.fixture
def rows(setting, random_site):
    """Requests of a busy site, some answered at the edge, some in the cloud, some never."""
    cluster = Cluster(
        setting, [random_site(3, rate_rps=150.0, deadlines_ms=(2.0, 100.0), edge_slowdown=2.0)]
    )
    return cluster.advance(np.inf)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": np.zeros(2, int)}, "site 1: expected 3 samples, got 2"),
        ({"deadlines_ms": np.ones(4)}, "expected 3 deadlines_ms, got 4"),
        ({"deadlines_ms": np.array([1, np.inf, 1])}, "deadlines_ms must be finite"),
        ({"edge_factors": np.array([1, -1, 1])}, "edge_factors must be finite and not negative"),
        ({"hops_ms": np.full(3, np.nan)}, "hops_ms must be finite"),
        ({"arrivals": np.array([0.0, 2, 1])}, "arrivals must not fall"),
        ({"arrivals": np.array([-1.0, 2, 3])}, "arrivals must not fall, from 0 ms on"),
        ({"arrivals": np.array([0, np.nan, 3])}, "arrivals must not fall"),
        ({"samples": np.array([0, 1, 60])}, "samples must be below 60"),
        ({"samples": np.array([0, -1, 6])}, "samples must be finite and not negative"),
        ({"trace_scale": 0.0}, "trace_scale must be finite and above 0"),
        ({"edge_slowdown": np.inf}, "edge_slowdown must be finite"),
        ({"round_trip_ms": -1.0}, "round_trip_ms must be finite and not negative"),
    ],
)
def test_sites_that_cannot_be_are_refused(setting, make_site, changes, message):
    """The message names the site and what is wrong with it."""
    good = make_site([0.0, 1.0, 2.0])
    with pytest.raises(DataError, match=message):
        Cluster(setting, [good, replace(good, **changes)])


def test_a_cluster_needs_a_site(setting):
    """Without one there is nothing to simulate."""
    with pytest.raises(DataError, match="at least one site"):
        Cluster(setting, [])


def test_a_site_without_requests_is_one(setting, make_site):
    """It only takes part."""
    cluster = Cluster(setting, [make_site([]), make_site([5.0])])
    assert len(cluster.advance(np.inf)) == 1


def test_plans_that_do_not_fit_are_refused(setting, make_site):
    """As routers refuse them."""
    cluster = Cluster(setting, [make_site([0.0])])
    for decision in (Decision(5, NEVER, 0), Decision(1, NEVER, 3), Decision(1, NEVER[1:], 0)):
        with pytest.raises(PlanError):
            cluster.set_plans(0, [decision] * 3)
    with pytest.raises(ValueError, match="zip"):
        cluster.set_plans(0, [setting.static] * 2)


def test_a_request_goes_by_the_plan_of_its_class(setting, make_site):
    """The class of a deadline is the one that the router's keeper finds."""
    deadlines_ms = np.array([1, 19.9, 20, 99, 100, 399, 400, 5_000])
    site = make_site(1e4 * np.arange(len(deadlines_ms)), deadlines_ms=deadlines_ms)
    cluster = Cluster(setting, [site])
    cluster.set_plans(0, [Decision(partition, NEVER, 0) for partition in (4, 3, 2)])
    rows = cluster.advance(np.inf)
    static = Plan(version=0, partition=2, thresholds=NEVER, level=0)
    keeper = PlanKeeper(static, setting.classes, 4, 3)
    names = [keeper.plan_for(ms)[0] for ms in deadlines_ms]
    assert rows[:, at.SLO].tolist() == ["abc".index(name) for name in names]
    assert rows[:, at.PARTITION].tolist() == [4, 4, 4, 4, 3, 3, 2, 2]


def test_a_surer_edge_answers_where_the_bundle_trusts_it(setting, make_site):
    """By the table that is given, whatever other outcomes say."""
    site = make_site(100.0 * np.arange(60))
    edge = setting.outcomes.entropy[:, 1]
    surer = edge < setting.outcomes.resumed_entropy[0, 2, :, 3]
    assert 0 < surer.sum() < 60
    for trusts in (True, False):
        trusted = np.full((3, 4), trusts)
        rows = Cluster(replace(setting, trusted=trusted), [site]).advance(np.inf)
        assert (rows[:, at.EXIT] == np.where(surer & trusts, 2, 4)).all()


def test_requests_are_found_by_their_arrival(setting, make_site):
    """From a time, and before another."""
    cluster = Cluster(setting, [make_site([1.0, 5.0, 9.0]), make_site([5.0])])
    assert cluster.arriving(1, 5).tolist() == [0]
    assert cluster.arriving(5, 9).tolist() == [1, 3]


def test_what_is_seen_is_what_records_would_tell(setting, rows):
    """Of requests without an answer nothing but deadline and lateness, as in a router's record."""
    told = seen(rows)
    lost = rows[:, at.STATUS] > at.BEST_EFFORT
    crossed = (rows[:, at.LINK_MS] > 0) & ~lost
    assert lost.any()
    assert crossed.any()
    assert not crossed.all()
    for name in set(SEEN.names) - {"deadline_ms", "budget_left_ms"}:
        assert not told[name][lost].any(), name
    assert (told["exit"][~lost] > 0).all()
    assert (told["edge_blocks"] + told["cloud_blocks"])[crossed] == pytest.approx(
        rows[crossed, at.BLOCK]
    )
    assert not told["cloud_ms"][~crossed].any()
    assert told["budget_left_ms"] == pytest.approx(rows[:, at.DEADLINE] - rows[:, at.TOTAL])
    observation = Watch(setting.profile, Observation()).observe(told, 2.0)
    assert observation.arrivals_rps == len(rows) / 2
    assert observation.missed == pytest.approx(1 - answered_in_time(rows).mean())


def test_what_a_request_is_worth(rows):
    """By hand, for each."""
    weights = Weights(satisfaction=2.0, accuracy=3.0, edge_cost=0.5)
    for row, worth in zip(rows, utilities(rows, weights), strict=True):
        in_time = row[at.STATUS] in (at.ANSWERED, at.BEST_EFFORT)
        expected = 2.0 * in_time + 3.0 * (in_time and row[at.CORRECT])
        assert worth == pytest.approx(expected - 0.5 * (row[at.EDGE_MS] + row[at.ENCODE_MS]) / 100)


def test_an_open_request_is_not_in_time(setting, make_site):
    """Nor is one that has not come yet."""
    cluster = Cluster(setting, [make_site([0.0, 500.0])])
    cluster.advance(5.0)
    assert not answered_in_time(cluster.requests).any()
    cluster.advance(400.0)
    assert answered_in_time(cluster.requests).tolist() == [True, False]
