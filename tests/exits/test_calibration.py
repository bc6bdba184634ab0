from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.exits.calibration import calibrate
from xpi_ray.exits.rule import first_sure_exit


def outcomes(seed, n=300, exits=5):
    """Entropy and correctness of a make-believe network that improves with depth."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=(n, 1)) + np.linspace(-0.5, 1.5, exits) + rng.normal(size=(n, exits)) / 2
    correct = ease + rng.normal(size=(n, exits)) / 2 > 0
    return 1 / (1 + np.exp(2 * np.abs(ease) - 1)), correct, np.arange(1.0, exits + 1) ** 1.2


def measure(entropy, correct, cost, thresholds):
    """Accuracy and mean cost, sample by sample."""
    exits = first_sure_exit(entropy, np.asarray(thresholds)) - 1
    return correct[np.arange(len(exits)), exits].mean(), cost[exits].mean()


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), tolerance=st.sampled_from([0.0, 0.005, 0.02, 0.1]))
def test_accuracy_is_kept_and_no_shared_threshold_is_cheaper(seed, tolerance):
    """The constraint holds, at no more than the cost of all blocks or of a shared threshold."""
    entropy, correct, cost = outcomes(seed, n=60)  # so few that the grid holds every entropy
    found = calibrate(entropy, correct, cost, tolerance)
    least = correct[:, -1].mean() - tolerance
    assert found.accuracy >= least
    assert found.mean_cost <= cost[-1]
    for shared in np.linspace(0, 1, 41):
        accuracy, mean_cost = measure(entropy, correct, cost, [shared] * 4 + [1.0])
        if accuracy >= least:
            assert found.mean_cost <= mean_cost + 1e-9


def test_reported_figures_are_those_of_the_rule():
    """Accuracy, cost and shares are what the thresholds do on the same data."""
    entropy, correct, cost = outcomes(1)
    found = calibrate(entropy, correct, cost, 0.01)
    assert (found.accuracy, found.mean_cost) == pytest.approx(
        measure(entropy, correct, cost, found.thresholds)
    )
    assert sum(found.exit_shares) == pytest.approx(1)
    assert np.dot(found.exit_shares, cost) == pytest.approx(found.mean_cost)
    assert found.thresholds[-1] == 1
    assert all(0 <= threshold <= 1 for threshold in found.thresholds)


@pytest.mark.parametrize("seed", range(3))
def test_more_tolerance_never_costs_more(seed):
    """Mean cost falls, or stays, as the tolerance rises."""
    entropy, correct, cost = outcomes(seed)
    costs = [calibrate(entropy, correct, cost, t).mean_cost for t in np.linspace(0, 0.3, 7)]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(costs))
    assert costs[-1] < costs[0]


@pytest.mark.parametrize("seed", range(5))
def test_close_to_the_best_of_all_thresholds(seed):
    """Trying every pair of thresholds of a three-exit network finds hardly anything cheaper."""
    entropy, correct, cost = outcomes(seed, n=60, exits=3)
    least = correct[:, -1].mean() - 0.05
    grids = [np.append(0.0, entropy[:, i]) for i in (0, 1)]
    tried = (measure(entropy, correct, cost, [*pair, 1.0]) for pair in product(*grids))
    best = min(mean_cost for accuracy, mean_cost in tried if accuracy >= least)
    found = calibrate(entropy, correct, cost, 0.05).mean_cost
    assert best - 1e-9 <= found
    assert found - best <= 0.1 * (cost[-1] - best)


def test_perfect_confidence_costs_nothing_but_the_hard_samples():
    """Where entropy tells right from wrong, each sample leaves at its first right exit."""
    correct = np.array([[True] * 3] * 6 + [[False, True, True]] * 3 + [[False, False, True]])
    entropy = np.where(correct, 0.1, 0.9)
    found = calibrate(entropy, correct, np.array([1.0, 2.0, 4.0]), 0.0)
    assert found.exit_shares == pytest.approx((0.6, 0.3, 0.1))
    assert found.accuracy == 1
    assert found.mean_cost == pytest.approx(0.6 + 0.6 + 0.4)


def test_useless_exits_are_never_taken():
    """Where only the last exit is ever right, everything runs to the end."""
    entropy = np.random.default_rng(0).uniform(0.1, 1, (100, 4))
    correct = np.zeros((100, 4), bool)
    correct[:, -1] = True
    found = calibrate(entropy, correct, np.arange(1.0, 5), 0.0)
    assert found.exit_shares == (0, 0, 0, 1)


def test_early_exits_that_are_right_more_often_are_taken():
    """Where later blocks only do harm, everything leaves at exit 1."""
    entropy = np.random.default_rng(0).uniform(0.1, 1, (100, 3))
    correct = np.zeros((100, 3), bool)
    correct[:, 0] = True
    assert calibrate(entropy, correct, np.arange(1.0, 4), 0.0).exit_shares == (1, 0, 0)


def test_one_exit_has_one_threshold():
    """A network of one block leaves at its end."""
    found = calibrate(np.full((4, 1), 0.5), np.array([[True], [False]] * 2), np.array([7.0]), 0.0)
    assert found == ((1.0,), 0.5, 7.0, (1.0,))


def test_surely_wrong_exits_give_the_most_accurate_there_is():
    """Wrong exits of entropy 0 leave at any threshold; the result admits the lost accuracy."""
    entropy = np.array([[0.0, 0.1], [0.5, 0.1]])
    correct = np.array([[False, True], [False, True]])
    found = calibrate(entropy, correct, np.array([1.0, 2.0]), 0.0)
    assert found.accuracy == 0.5
    assert found.thresholds == (0.0, 1.0)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    missing=st.sets(st.integers(0, 3)),
    tolerance=st.sampled_from([0.0, 0.005, 0.05]),
)
def test_blocks_without_an_exit_are_passed_by(seed, missing, tolerance):
    """Their threshold is 0 and nobody leaves there; all else is as if they were not there."""
    entropy, correct, cost = outcomes(seed, n=60)
    entropy[:, list(missing)], correct[:, list(missing)] = 2.0, False
    found = calibrate(entropy, correct, cost, tolerance)
    exits = [place for place in range(5) if place not in missing]
    alone = calibrate(entropy[:, exits], correct[:, exits], cost[exits], tolerance)
    assert tuple(found.thresholds[place] for place in exits) == alone.thresholds
    assert tuple(found.exit_shares[place] for place in exits) == alone.exit_shares
    assert (found.accuracy, found.mean_cost) == (alone.accuracy, alone.mean_cost)
    assert all(found.thresholds[place] == found.exit_shares[place] == 0 for place in missing)
    assert (found.accuracy, found.mean_cost) == pytest.approx(
        measure(entropy, correct, cost, found.thresholds)
    )
