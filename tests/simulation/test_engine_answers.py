"""Of the exits that ran the one answers that the site is told to let answer."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.policies.base import Decision
from xpi_ray.profiles.outcomes import NO_EXIT
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import Cluster

NEVER, ALWAYS = (0.0,) * 4, (1.0,) * 4
DECISIONS = st.builds(
    Decision,
    st.integers(0, 4),
    st.sampled_from([NEVER, ALWAYS, (0.3,) * 4, (0.0, 0.5, 0.5, 0.0)]),
    st.integers(0, 2),
)


@pytest.fixture(scope="session")
def sparse(setting):
    """The setting with exits after blocks 2 and 4 alone, which are not fused."""
    outcomes = setting.outcomes
    arrays = {
        name: getattr(outcomes, name).copy()
        for name in ("entropy", "correct", "resumed_entropy", "resumed_correct")
    }
    for name, array in arrays.items():
        array[..., [0, 2]] = NO_EXIT if "entropy" in name else False
    return replace(setting, outcomes=outcomes._replace(**arrays), fuses=False)


def run(setting, site, decision):
    """All requests' rows under one plan for all."""
    cluster = Cluster(setting, [site])
    cluster.set_plans(0, [decision] * len(setting.classes))
    cluster.advance(np.inf)
    return cluster.requests


def exits_of(entropy, correct, blocks):
    """Entropy, number and correctness of each exit that is there."""
    return [(entropy[i], i + 1, correct[i]) for i in blocks if entropy[i] <= 1]


def that_ran(outcomes, row):
    """The exits that ran at the edge, and those in the cloud if it answered."""
    sample, partition, level = (int(row[each]) for each in (at.SAMPLE, at.PARTITION, at.LEVEL))
    whole = outcomes.entropy[sample], outcomes.correct[sample]
    edge = exits_of(*whole, range(int(row[at.EDGE_BLOCKS])))
    if not row[at.LINK_MS]:
        return edge, []
    place = level, partition, sample
    resumed = outcomes.resumed_entropy[place], outcomes.resumed_correct[place]
    return edge, exits_of(*resumed, range(partition, int(row[at.BLOCK])))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    decision=DECISIONS,
    few=st.booleans(),
    answers=st.sampled_from(["last", "surest"]),
)
def test_the_exit_that_answers_is_the_last_or_the_surest(
    setting, sparse, random_site, seed, decision, few, answers
):
    """Of both tiers; the last is the edge's where it is surer and trusted, which few are not."""
    setting = replace(sparse if few else setting, answers=answers)
    for row in run(setting, random_site(seed, rate_rps=100.0), decision):
        if row[at.STATUS] > at.BEST_EFFORT:
            assert not row[[at.EXIT, at.CORRECT]].any()
            continue
        edge, cloud = that_ran(setting.outcomes, row)
        best = (edge + cloud)[-1]
        if answers == "surest":
            best = min(reversed(edge + cloud), key=lambda each: each[0])
        elif edge and cloud and not few and edge[-1][0] < best[0]:
            trusted = setting.outcomes.edge_trusted()
            best = edge[-1] if trusted[int(row[at.LEVEL]), int(row[at.PARTITION])] else best
        assert tuple(row[[at.ENTROPY, at.EXIT, at.CORRECT]]) == best


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), decision=DECISIONS, few=st.booleans())
def test_without_best_effort_such_answers_are_missed(
    setting, sparse, random_site, seed, decision, few
):
    """At the same time, and nothing else differs."""
    setting = sparse if few else setting
    site = random_site(seed, rate_rps=100.0)
    expected = run(setting, site, decision)
    unsure = expected[:, at.STATUS] == at.BEST_EFFORT
    expected[unsure, at.STATUS] = at.MISSED
    expected[np.ix_(unsure, [at.EXIT, at.CORRECT])] = 0
    assert (run(replace(setting, best_effort=False), site, decision) == expected).all()


def test_a_partition_without_an_exit_in_hand_is_missed_where_the_link_is_slow(
    sparse, make_site, steady
):
    """Behind block 1 there is none; behind block 3 there is exit 2."""
    site = make_site([0.0, 1_000.0], trace=steady(2e3), deadlines_ms=150.0)
    for partition, exit_, status in ((1, 0, at.MISSED), (3, 2, at.BEST_EFFORT)):
        rows = run(replace(sparse, reroutes=False), site, Decision(partition, NEVER, 0))
        assert (
            rows[:, [at.EXIT, at.STATUS, at.EDGE_BLOCKS]].tolist()
            == [[exit_, status, partition]] * 2
        )
