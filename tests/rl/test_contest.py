import numpy as np
import pytest

from rl.contest import by_deadline, drive, facts, fixed, oracle, untrained
from xpi_ray.policies.learned import GAP
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.static import Static
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import utilities
from xpi_ray.simulation.draw import draw_site

SECONDS = 2.0


@pytest.fixture(scope="module")
def site(task):
    """One that has enough to do."""
    return draw_site(task.setting, task.sources, SECONDS, np.random.default_rng(12))


def worth(task, rows):
    """The mean utility."""
    return utilities(rows, task.viewer.weights).mean()


@pytest.mark.parametrize("deadline_ms", [20.0, 150.0, 600.0])
@pytest.mark.parametrize("link_bps", [1e5, 1e7])
def test_untrained_is_the_forecast_s_choice(task, link_bps, deadline_ms):
    """The plan of the highest forecast is chosen."""
    observation = Observation(link_bps=link_bps, edge_slowdown=10.0)
    slo = SloClass(name="any", deadline_ms=deadline_ms)
    view = task.viewer.view(observation, deadline_ms)
    chosen = untrained(task.viewer).decide(observation, slo)
    best = [task.viewer.candidates[i].decision for i in view.shortlist[view.features[GAP] == 0]]
    assert chosen in best


def test_a_policy_that_never_changes_is_a_fixed_plan(task, site):
    """The static plan driven by a policy is the static plan; others differ by the first period."""
    static = task.setting.static
    rows = drive(task, site, Static(static), SECONDS)
    assert (rows == fixed(task, site, [static] * 3)).all()
    other = task.viewer.candidates[-1].decision
    rows, twin = drive(task, site, Static(other), SECONDS), fixed(task, site, [other] * 3)
    first = rows[:, at.ARRIVED] < 1_000 * task.period_s
    assert (rows[first, at.PARTITION] == static.partition).all()
    assert (rows[~first, at.PARTITION] == other.partition).all()
    assert (twin[:, at.PARTITION] == other.partition).all()


def test_the_policy_is_asked_for_each_class_with_what_was_seen(task, site):
    """Once a period, short deadlines first, and its decision holds for that class alone."""
    asked = []

    class Asked:
        """Stays at the edge where deadlines are short."""

        def decide(self, observation, slo):
            """Note what was asked."""
            asked.append((observation, slo.name))
            plans = task.viewer.candidates
            return plans[-1 if slo.name == "a" else 0].decision

    rows = drive(task, site, Asked(), SECONDS)
    assert [name for _, name in asked] == ["a", "b", "c"] * int(SECONDS / task.period_s)
    assert isinstance(asked[0][0], Observation)
    late = rows[rows[:, at.ARRIVED] >= 500]
    plans = task.viewer.candidates
    for number, plan in enumerate((plans[-1], plans[0], plans[0])):
        of_class = late[late[:, at.SLO] == number]
        assert (of_class[:, at.PARTITION] == plan.decision.partition).all()


def test_nothing_does_better_than_the_oracle(task, site):
    """Neither any plan that never changes, nor chance, by more than a hair."""
    ceiling = worth(task, oracle(task, site, SECONDS))
    plans = [candidate.decision for candidate in task.viewer.candidates]
    reached = [worth(task, fixed(task, site, [plan] * 3)) for plan in plans]
    assert ceiling >= max(reached) - 0.01
    assert ceiling > np.median(reached) + 0.02


def test_facts_are_counted_by_hand(task, site):
    """Over all requests, answered or not."""
    rows = drive(task, site, Static(task.setting.static), SECONDS)
    told = facts(rows, task.viewer.weights)
    in_time = [r[at.STATUS] in (at.ANSWERED, at.BEST_EFFORT) for r in rows]
    assert told["requests"] == len(site.arrivals)
    assert told["deadline_satisfaction"] == pytest.approx(np.mean(in_time))
    assert told["accuracy"] == pytest.approx(rows[in_time, at.CORRECT].mean())
    assert told["reward"] == pytest.approx(worth(task, rows))
    assert (
        0 < told["edge_ms"] == pytest.approx((rows[:, at.EDGE_MS] + rows[:, at.ENCODE_MS]).mean())
    )


def test_classes_count_by_their_deadlines(task):
    """However they are listed."""
    assert [slo.name for slo in by_deadline(task)] == ["a", "b", "c"]
