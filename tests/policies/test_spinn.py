import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.exits.confidence import normalised_entropy
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.spinn import AVERAGED, CONFIDENCES, Spinn, entropy_at

N, CLASSES = 4, 10
OBSERVATIONS = st.builds(
    Observation,
    edge_slowdown=st.floats(0.5, 10),
    cloud_slowdown=st.floats(0.5, 5),
    edge_wait_ms=st.floats(0, 10),
    cloud_wait_ms=st.floats(0, 10),
    round_trip_ms=st.floats(0, 50),
    link_bps=st.floats(1e4, 1e9),
)


def simulate(outcomes, threshold, partition, ms_at):
    """Run every sample, one by one: expected latency, and the share of right answers."""
    total = right = 0.0
    for entropy, correct in zip(outcomes.entropy, outcomes.correct, strict=True):
        surest = 0
        for block in range(N):
            if entropy[block] < entropy[surest]:
                surest = block
            sure = entropy[block] <= threshold
            if sure or block == N - 1:
                total += ms_at(partition, block + 1)
                right += correct[block] if sure else correct[surest]
                break
    return total / len(outcomes.entropy), right / len(outcomes.entropy)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 20),
    seen=OBSERVATIONS,
    deadline_ms=st.floats(5, 200),
    least=st.integers(0, N),
)
def test_the_choice_is_that_of_trying_everything(
    make_sparse, make_timetable, latency_ms, seed, seen, deadline_ms, least
):
    """In time if any is; of these the most accurate, and of these the quickest."""
    outcomes = make_sparse(seed)
    policy = Spinn(make_timetable(outcomes), outcomes, CLASSES, least)
    decision = policy.decide(seen, SloClass(name="any", deadline_ms=deadline_ms))
    crossing_ms = seen.round_trip_ms + seen.cloud_wait_ms

    def ms_at(partition, exit_):
        slow = seen.edge_slowdown, seen.cloud_slowdown
        link = seen.link_bps, crossing_ms
        return seen.edge_wait_ms + latency_ms(outcomes, partition, exit_, *link, *slow)

    threshold = decision.thresholds[1]
    assert decision.thresholds == (0.0, threshold, threshold, threshold)
    assert decision.level == 0
    plans = {
        (entropy_at(confidence, CLASSES), p): simulate(
            outcomes, np.float64(entropy_at(confidence, CLASSES)), p, ms_at
        )
        for confidence in CONFIDENCES
        for p in range(least, N + 1)
    }
    ms, accuracy = plans[threshold, decision.partition]
    in_time = [plan for plan in plans.values() if plan[0] <= deadline_ms]
    if not in_time:
        assert ms == pytest.approx(min(plan[0] for plan in plans.values()))
        return
    assert ms <= deadline_ms * (1 + 1e-9)
    best = max(plan[1] for plan in in_time)
    assert accuracy == pytest.approx(best)
    assert ms == pytest.approx(min(plan[0] for plan in in_time if plan[1] == best))


def test_the_bandwidth_is_a_moving_average(make_sparse, make_timetable):
    """Of the last periods; another class's question about the same one does not count again."""
    outcomes = make_sparse(0)
    policy = Spinn(make_timetable(outcomes), outcomes, CLASSES)
    slo = SloClass(name="any", deadline_ms=50)
    for number in range(2 * AVERAGED):
        seen = Observation(link_bps=1e6 * (1 + number))
        policy.decide(seen, slo)
        policy.decide(seen, slo)
    steady = Spinn(make_timetable(outcomes), outcomes, CLASSES)
    mean = 1e6 * np.mean(range(AVERAGED + 1, 2 * AVERAGED + 1))
    assert list(policy._bandwidths) == [1e6 * n for n in range(AVERAGED + 1, 2 * AVERAGED + 1)]
    assert policy.decide(seen, slo) == steady.decide(Observation(link_bps=mean), slo)


@given(st.integers(2, 300), st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_an_entropy_stands_in_the_middle_of_what_is_possible(classes, top, seed):
    """No softmax with this top probability is further from it than the extremes are."""
    top = max(top, 1 / classes)
    middle = entropy_at(top, classes)
    rest = np.random.default_rng(seed).dirichlet(np.full(classes - 1, 0.3)) * (1 - top)
    if rest.max() > top:
        return
    logits = np.log(np.maximum(np.append(top, rest), 1e-30)).astype(np.float32)
    entropy = float(normalised_entropy(logits))
    even = np.full(classes - 1, (1 - top) / (classes - 1))
    most = float(normalised_entropy(np.log(np.maximum(np.append(top, even), 1e-30)).astype("f")))
    assert entropy <= most + 1e-5
    assert abs(entropy - middle) <= most - middle + 1e-5


def test_entropies_fall_as_confidence_rises():
    """From none at all at an even softmax to 0 at a certain one."""
    entropies = [entropy_at(confidence, CLASSES) for confidence in (*CONFIDENCES, 1.0)]
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[0] == pytest.approx(1)
    assert entropies[-1] == 0
    assert entropy_at(0.1, 5) == pytest.approx(1)
    least, most = math.log(2), math.log(2) + 0.5 * math.log(9)
    assert entropy_at(0.5, 10) == pytest.approx((least + most) / 2 / math.log(10))
