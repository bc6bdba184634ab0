import numpy as np
import pytest
from scipy.optimize import minimize

from xpi_ray.profiles.likelihood import LEAST_ENTROPY, RIDGE, likely


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
