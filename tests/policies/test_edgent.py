import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.policies.edgent import STATES_BPS, Edgent, EdgentDynamic
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass

EXITS = (2, 3, 4)
LINKS = st.floats(1e4, 1e9)
DEADLINES = st.floats(5, 120)
LEASTS = st.integers(0, 4)


def slo(deadline_ms):
    """A class."""
    return SloClass(name="any", deadline_ms=deadline_ms)


def told(decision):
    """Exit, partition of a decision that lets all leave at one exit."""
    assert decision.level == 0
    assert sorted(decision.thresholds) == [0.0, 0.0, 0.0, 1.0]
    return decision.thresholds.index(1.0) + 1, decision.partition


@given(
    seed=st.integers(0, 20),
    link_bps=LINKS,
    round_trip_ms=st.floats(0, 60),
    deadline_ms=DEADLINES,
    least=LEASTS,
)
def test_the_deepest_exit_in_time_is_taken_at_its_best_split(
    make_sparse, make_timetable, latency_ms, seed, link_bps, round_trip_ms, deadline_ms, least
):
    """As by trying all; where none is in time, the quickest of all, whatever load and queues."""
    outcomes = make_sparse(seed)
    seen = Observation(
        link_bps=link_bps, round_trip_ms=round_trip_ms, edge_slowdown=9, edge_wait_ms=99
    )
    policy = Edgent(make_timetable(outcomes), outcomes, least)
    exit_, partition = told(policy.decide(seen, slo(deadline_ms)))
    times = {
        (e, p): latency_ms(outcomes, p, e, link_bps, round_trip_ms)
        for e in EXITS
        for p in range(least, 5)
    }
    best = {e: min(times[e, p] for p in range(least, 5)) for e in EXITS}
    in_time = [e for e in EXITS if best[e] <= deadline_ms]
    assert times[exit_, partition] == pytest.approx(best[exit_])
    if in_time:
        assert exit_ == max(in_time)
    else:
        assert best[exit_] == min(best.values())


@given(seed=st.integers(0, 20), state=st.integers(0, 100), deadline_ms=DEADLINES, least=LEASTS)
def test_the_map_has_the_highest_reward_for_each_state(
    make_sparse, make_timetable, latency_ms, seed, state, deadline_ms, least
):
    """exp(accuracy) + throughput in time, as by trying all; after some values of it."""
    outcomes, link_bps = make_sparse(seed), float(STATES_BPS[state])
    policy = EdgentDynamic(make_timetable(outcomes), outcomes, 7.0, least)
    for _ in range(5):
        seen = Observation(link_bps=link_bps, round_trip_ms=500)
        policy.decide(seen, slo(deadline_ms))
    exit_, partition = told(policy.decide(seen, slo(deadline_ms)))

    def judge(e, p):
        ms = latency_ms(outcomes, p, e, link_bps, 7.0)
        reward = math.exp(outcomes.correct[:, e - 1].mean()) + 1000 / ms
        return (reward if ms <= deadline_ms else 0.0), -ms

    best = max(judge(e, p) for e in EXITS for p in range(least, 5))
    assert judge(exit_, partition) == pytest.approx(best)


@pytest.fixture
def dynamic(make_sparse, make_timetable):
    """Edgent for a network whose deadline of 25 ms only a quick link allows to go deep."""
    outcomes = make_sparse(0)
    return EdgentDynamic(make_timetable(outcomes), outcomes, 1.0)


def test_a_change_of_the_link_changes_the_plan_and_noise_does_not(dynamic):
    """A few values of another bandwidth are enough; one class's question is not news twice."""

    def decide(link_bps):
        seen = Observation(link_bps=link_bps)
        first = dynamic.decide(seen, slo(25))
        lengths = dynamic._bandwidth.run_lengths.copy()
        assert dynamic.decide(seen, slo(25)) == first
        assert (dynamic._bandwidth.run_lengths == lengths).all()
        return first

    quick = [decide(1e8 * (1 + 0.05 * (-1) ** n)) for n in range(40)]
    assert len(set(quick[5:])) == 1
    slow = [decide(2e5 * (1 + 0.05 * (-1) ** n)) for n in range(10)]
    assert slow[-1] != quick[-1]
    assert len(set(slow[3:])) == 1
    assert [decide(1e8) for _ in range(10)][-1] == quick[-1]
