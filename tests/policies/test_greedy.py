import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.policies.greedy import LEVEL_TOLERANCE, TAIL, LeastLatency
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.profiles.table import Profile

N, LEVELS, SAMPLES = 4, 3, 60  # as in what ``make_outcomes`` makes
PROFILE = Profile(
    machine="a toaster", threads=1, block_ms=(1.0, 2.0, 3.0, 4.0), encode_ms=0.5, decode_ms=0.25
)
THRESHOLDS = ((0.2, 0.2, 0.2, 1.0), (0.5, 0.5, 0.5, 1.0), (0.8, 0.8, 0.8, 1.0))


def simulate(outcomes, observation, partition, level, thresholds):
    """Run every sample, one by one: latencies, and the share of right answers."""
    if partition == N:
        entropy, correct = outcomes.entropy, outcomes.correct
    else:
        entropy = outcomes.resumed_entropy[level, partition]
        correct = outcomes.resumed_correct[level, partition]
    latencies, right = [], 0
    for sample in range(SAMPLES):
        ms = observation.edge_wait_ms
        for block in range(1, N + 1):
            if block == partition + 1:
                if partition == 0 or level == LEVELS:  # the cloud begins with the image
                    ms += sum(PROFILE.block_ms[:partition]) * observation.cloud_slowdown
                else:
                    ms += PROFILE.encode_ms * observation.edge_slowdown
                ms += observation.round_trip_ms
                ms += 8_000 * float(outcomes.frame_bytes[level, partition]) / observation.link_bps
                ms += observation.cloud_wait_ms + PROFILE.decode_ms * observation.cloud_slowdown
            slowdown = (
                observation.edge_slowdown if block <= partition else observation.cloud_slowdown
            )
            ms += PROFILE.block_ms[block - 1] * slowdown
            if entropy[sample, block - 1] <= thresholds[block - 1] or block == N:
                right += correct[sample, block - 1]
                break
        latencies.append(ms)
    return np.array(latencies), right / SAMPLES


def brute_force(outcomes, observation, least_partition):
    """Every plan that may be chosen: (strictness, expected, tail, decision)."""
    found = []
    for strictness, thresholds in enumerate(THRESHOLDS):
        for partition in range(least_partition, N + 1):
            exact = simulate(outcomes, observation, partition, 0, thresholds)[1]
            for level in range(1 if partition in (0, N) else LEVELS + 1):
                ms, accuracy = simulate(outcomes, observation, partition, level, thresholds)
                if accuracy >= exact - LEVEL_TOLERANCE:
                    tail = np.quantile(ms, TAIL - 1e-9, method="inverted_cdf")
                    found.append((strictness, ms.mean(), tail, (partition, thresholds, level)))
    return found


SLO = {"name": "any", "deadline_ms": 1e6}
OBSERVATIONS = st.builds(
    Observation,
    edge_slowdown=st.floats(0.5, 20),
    cloud_slowdown=st.floats(0.5, 5),
    edge_wait_ms=st.floats(0, 10),
    cloud_wait_ms=st.floats(0, 10),
    round_trip_ms=st.floats(0, 50),
    link_bps=st.floats(1e4, 1e9),
)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 50),
    observation=OBSERVATIONS,
    deadline_ms=st.floats(1, 200),
    least_partition=st.integers(0, N),
)
def test_the_choice_is_that_of_trying_everything(
    make_outcomes, seed, observation, deadline_ms, least_partition
):
    """Among plans whose tail meets the deadline: the strictest thresholds, then the least mean."""
    outcomes = make_outcomes(seed).with_images()
    policy = LeastLatency(PROFILE, outcomes, THRESHOLDS, least_partition)
    decision = policy.decide(observation, SloClass(name="any", deadline_ms=deadline_ms))
    plans = brute_force(outcomes, observation, least_partition)
    (chosen,) = (plan for plan in plans if plan[3] == tuple(decision))
    meeting = [plan for plan in plans if plan[2] <= deadline_ms]
    if not meeting:
        assert chosen[2] == pytest.approx(min(plan[2] for plan in plans))
        return
    strictest = min(plan[0] for plan in meeting)
    assert chosen[0] == strictest
    assert chosen[2] <= deadline_ms * (1 + 1e-9)
    assert chosen[1] == pytest.approx(min(plan[1] for plan in meeting if plan[0] == strictest))


@pytest.fixture(scope="module")
def policy(make_outcomes):
    """The policy for the make-believe network."""
    return LeastLatency(PROFILE, make_outcomes(0), THRESHOLDS)


def test_a_slow_edge_and_a_quick_link_move_to_the_cloud(policy):
    """Only the block that must stay runs at an edge twenty times weaker."""
    seen = Observation(edge_slowdown=20, link_bps=1e9, round_trip_ms=1)
    assert policy.decide(seen, SloClass(**SLO)).partition == 1


def test_a_slow_link_keeps_everything_at_the_edge(policy):
    """At 10 kbit/s nothing is worth sending, even from a weak edge."""
    seen = Observation(edge_slowdown=4, link_bps=1e4, round_trip_ms=200)
    assert policy.decide(seen, SloClass(**SLO)).partition == N


def test_a_narrow_link_is_worth_compressing_for(policy):
    """The harmless level is taken, and the one that costs accuracy is not."""
    seen = Observation(edge_slowdown=20, link_bps=2e6, round_trip_ms=1)
    decision = policy.decide(seen, SloClass(**SLO))
    assert decision.partition < N
    assert decision.level == 1


def test_accuracy_is_given_up_only_for_the_deadline(policy):
    """As deadlines shrink, thresholds loosen and never tighten; with time, they are strictest."""
    seen = Observation(edge_slowdown=3, link_bps=1e7, round_trip_ms=5)
    decisions = [
        policy.decide(seen, SloClass(name="any", deadline_ms=ms)) for ms in (100, 30, 20, 12, 8)
    ]
    strictness = [THRESHOLDS.index(decision.thresholds) for decision in decisions]
    assert strictness[0] == 0
    assert strictness == sorted(strictness)
    assert strictness[-1] > 0


@pytest.mark.parametrize("least", range(N + 1))
def test_the_first_blocks_stay_at_the_edge(make_outcomes, least):
    """However weak the edge, no plan splits before the least partition."""
    policy = LeastLatency(PROFILE, make_outcomes(1), THRESHOLDS, least)
    seen = Observation(edge_slowdown=1e3, link_bps=1e9, round_trip_ms=0)
    assert policy.decide(seen, SloClass(**SLO)).partition == least
    assert policy.decide(seen, SloClass(name="hopeless", deadline_ms=0.01)).partition >= least
