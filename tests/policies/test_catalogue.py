import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.errors import PlanError
from xpi_ray.policies.catalogue import candidates

N, LEVELS = 4, 3
THRESHOLDS = ((0.2, 0.2, 0.2, 1.0), (0.5, 0.5, 0.5, 1.0))


def follow(outcomes, candidate):
    """Where each sample leaves, whether that is right, and the edge's last exit's answer."""
    partition, thresholds, level = candidate.decision
    entropy, correct = outcomes.entropy, outcomes.correct
    if partition < N:
        entropy = outcomes.resumed_entropy[level, partition]
        correct = outcomes.resumed_correct[level, partition]
    for sample in range(len(entropy)):
        exit_ = 1
        while exit_ < N and not entropy[sample, exit_ - 1] <= thresholds[exit_ - 1]:
            exit_ += 1
        yield exit_, correct[sample, exit_ - 1], correct[sample, max(partition - 1, 0)]


@settings(max_examples=20)
@given(seed=st.integers(0, 50), least=st.integers(0, N))
def test_every_plan_is_there_with_what_it_did(make_outcomes, seed, least):
    """Shares, accuracies and the edge's own answer are counts over samples, one by one."""
    outcomes = make_outcomes(seed)
    found = candidates(outcomes, THRESHOLDS, least)
    decisions = [candidate.decision for candidate in found]
    assert len(set(decisions)) == len(decisions)
    assert {(d.partition, d.thresholds, d.level) for d in decisions} == {
        (partition, thresholds, level)
        for thresholds in THRESHOLDS
        for partition in range(least, N + 1)
        for level in range(1 if partition in (0, N) else LEVELS)
    }
    for candidate in found:
        partition, thresholds, level = candidate.decision
        assert THRESHOLDS[candidate.strictness] == thresholds
        ends = list(follow(outcomes, candidate))
        for exit_ in range(1, N + 1):
            rights = [right for end, right, _ in ends if end == exit_]
            assert candidate.shares[exit_ - 1] == pytest.approx(len(rights) / len(ends))
            expected = np.mean(rights) if rights else 0.0
            assert candidate.accuracies[exit_ - 1] == pytest.approx(expected)
        assert candidate.accuracy == pytest.approx(np.mean([right for _, right, _ in ends]))
        instead = [at_edge for end, _, at_edge in ends if end > partition > 0]
        assert candidate.edge_accuracy == pytest.approx(np.mean(instead) if instead else 0.0)
        stays = partition == N
        assert candidate.frame_bytes == (0 if stays else outcomes.frame_bytes[level, partition])


def test_levels_that_cost_too_much_are_left_out(make_outcomes):
    """Those within the tolerance of level 0 stay; level 0 always does."""
    outcomes = make_outcomes(3)
    every = {c.decision: c.accuracy for c in candidates(outcomes, THRESHOLDS)}
    kept = {c.decision for c in candidates(outcomes, THRESHOLDS, level_tolerance=0.02)}
    for decision, accuracy in every.items():
        exact = every[decision._replace(level=0)]
        assert (decision in kept) == (accuracy >= exact - 0.02)
    assert 0 < len(kept) < len(every)


@pytest.mark.parametrize("least", [-1, N + 1])
def test_no_plan_splits_where_there_is_no_block(make_outcomes, least):
    """The least partition is one of 0..N."""
    with pytest.raises(PlanError, match=f"least_partition {least} is beyond the last block, 4"):
        candidates(make_outcomes(0), THRESHOLDS, least)
