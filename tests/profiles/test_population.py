import numpy as np
import pytest
from scipy.optimize import minimize

from xpi_ray.exits.rule import first_sure_exit
from xpi_ray.profiles.outcomes import NO_EXIT, Outcomes
from xpi_ray.profiles.population import LEAST_ENTROPY, RIDGE, likely, population


def test_chances_are_those_of_a_ridge_logistic_regression(make_outcomes):
    """As another solver finds them, for an exit with and one without a link before it."""
    outcomes = make_outcomes(0, samples=90)
    found = likely(outcomes)
    for entropy, right, chances in (
        (outcomes.entropy, outcomes.correct[:, 1], found.correct[:, 1]),
        (
            outcomes.resumed_entropy[2, 1],
            outcomes.resumed_correct[2, 1, :, 3],
            found.resumed_correct[2, 1, :, 3],
        ),
    ):
        bounded = entropy.astype(float).clip(LEAST_ENTROPY, 1 - LEAST_ENTROPY)
        logits = np.log(bounded / (1 - bounded))
        logits = (logits - logits.mean(0)) / logits.std(0)

        def loss(weights, logits=logits, right=right):
            scores = weights[0] + logits @ weights[1:]
            misfit = np.logaddexp(0, np.where(right, -scores, scores)).sum()
            return misfit + RIDGE / 2 * (weights[1:] ** 2).sum()

        weights = minimize(loss, np.zeros(5), tol=1e-10).x
        expected = 1 / (1 + np.exp(-weights[0] - logits @ weights[1:]))
        assert chances == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_as_many_are_right_as_before(make_outcomes, seed):
    """In all, at every exit and behind every link; exits before a link do not know of it."""
    outcomes = make_outcomes(seed, samples=200)
    found = likely(outcomes)
    assert found.correct.mean(0) == pytest.approx(outcomes.correct.mean(0), abs=1e-4)
    rights = outcomes.resumed_correct.mean(2)
    assert found.resumed_correct.mean(2) == pytest.approx(rights, abs=1e-4)
    assert (found.resumed_correct[:, 2, :, :2] == found.correct[None, :, :2]).all()
    assert (found.entropy == outcomes.entropy).all()
    assert ((found.correct > 0) & (found.correct < 1)).all()


def test_an_exit_that_is_always_right_stays_so(make_outcomes):
    """No chance of it runs away."""
    outcomes = make_outcomes(0)
    found = likely(outcomes._replace(correct=np.ones_like(outcomes.correct)))
    assert found.correct == pytest.approx(np.ones_like(found.correct), abs=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_a_population_is_like_all_samples(make_outcomes, seed):
    """As many, leaving where they leave and as rightly, each of them one that crossed."""
    outcomes = make_outcomes(seed, samples=600)
    crossed = 300
    some = outcomes._replace(
        resumed_entropy=outcomes.resumed_entropy[:, :, :crossed],
        resumed_correct=outcomes.resumed_correct[:, :, :crossed],
    )
    thresholds = [(0.2, 0.2, 0.2, 1.0), (0.5, 0.5, 0.5, 1.0)]
    found = population(some, thresholds)
    assert found.entropy.shape == (600, 4)
    assert found.resumed_correct.shape[2] == 600
    for limits in thresholds:
        exits = first_sure_exit(outcomes.entropy.copy(), np.array(limits))
        ours = first_sure_exit(found.entropy.copy(), np.array(limits))
        assert ours.mean() == pytest.approx(exits.mean(), abs=0.05)
        right = outcomes.correct[np.arange(600), exits - 1].mean()
        assert found.correct[np.arange(600), ours - 1].mean() == pytest.approx(right, abs=0.02)
    known = {tuple(row) for row in some.entropy[:crossed]}
    assert {tuple(row) for row in found.entropy} <= known
    assert len(known & {tuple(row) for row in found.entropy}) > crossed / 2


def without_exits(outcomes, blocks):
    """The same, had some blocks no exit."""
    entropy, resumed_entropy = outcomes.entropy.copy(), outcomes.resumed_entropy.copy()
    correct, resumed_correct = outcomes.correct.copy(), outcomes.resumed_correct.copy()
    for entropies, rights in ((entropy, correct), (resumed_entropy, resumed_correct)):
        entropies[..., blocks], rights[..., blocks] = NO_EXIT, False
    return Outcomes(entropy, correct, resumed_entropy, resumed_correct, outcomes.frame_bytes)


def test_blocks_without_an_exit_have_no_chance_and_no_say(make_outcomes):
    """Chances of the other exits are what they would be if such blocks were not there."""
    outcomes = without_exits(make_outcomes(4, samples=80), [0, 2])
    found = likely(outcomes)
    assert not found.correct[:, [0, 2]].any()
    assert not found.resumed_correct[..., [0, 2]].any()
    kept = outcomes._replace(
        entropy=outcomes.entropy[:, [1, 3]],
        correct=outcomes.correct[:, [1, 3]],
        resumed_entropy=outcomes.resumed_entropy[:, [0, 2]][..., [1, 3]],
        resumed_correct=outcomes.resumed_correct[:, [0, 2]][..., [1, 3]],
    )
    alone = likely(kept)
    assert found.correct[:, [1, 3]] == pytest.approx(alone.correct, abs=1e-6)
    assert found.resumed_correct[:, 2, :, 3] == pytest.approx(
        alone.resumed_correct[:, 1, :, 1], abs=1e-6
    )


def test_a_population_of_a_single_exit(make_outcomes):
    """All leave at the end, as rightly as they do."""
    outcomes = without_exits(make_outcomes(5, samples=400), [0, 1, 2])
    found = population(outcomes, [(0.0, 0.0, 0.0, 1.0)])
    assert found.exits.tolist() == [False, False, False, True]
    assert (first_sure_exit(found.entropy.copy(), np.array([0.0, 0.0, 0.0, 1.0])) == 4).all()
    assert found.correct[:, 3].mean() == pytest.approx(outcomes.correct[:, 3].mean(), abs=0.02)
