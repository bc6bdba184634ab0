import numpy as np
import pytest

from xpi_ray.elastic.baselines import ExitMeans, LastLogistic, NearestNeighbours, RunningMean
from xpi_ray.elastic.predictor import MaskedPerceptron, log_odds

PREDICTORS = (MaskedPerceptron, LastLogistic, NearestNeighbours, RunningMean, ExitMeans)


def samples(count, exits=5, seed=0):
    """Confidences of easy and hard samples, which rise from exit to exit, with some noise."""
    rng = np.random.default_rng(seed)
    odds = (
        rng.normal(0, 2, (count, 1))
        + np.linspace(-1, 2, exits)
        + rng.normal(0, 0.5, (count, exits))
    )
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


@pytest.fixture(scope="module")
def held_out():
    return samples(2000)


@pytest.fixture(scope="module", params=PREDICTORS, ids=lambda kind: kind.__name__)
def predictor(request, held_out):
    return request.param.fit(held_out, held_out)


def test_what_was_seen_stays(predictor):
    """A predictor changes no confidence of an exit that ran, and gives chances for the others."""
    confidence = samples(50, seed=1)
    seen = np.random.default_rng(2).random(confidence.shape) < 0.5
    found = predictor(confidence, seen)
    assert found.shape == confidence.shape
    assert (found[seen] == confidence[seen]).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_what_was_not_seen_is_not_looked_at(predictor):
    """What stands in the place of an exit that did not run changes nothing."""
    confidence = samples(50, seed=1)
    seen = np.random.default_rng(2).random(confidence.shape) < 0.5
    other = np.where(seen, confidence, 0.123).astype(np.float32)
    assert np.allclose(predictor(confidence, seen)[~seen], predictor(other, seen)[~seen])


def test_a_sample_that_shows_nothing_gets_the_mean(predictor, held_out):
    """Before the first exit ran every exit is expected to be as sure as it is on average."""
    nothing = np.zeros((1, held_out.shape[1]), np.bool_)
    found = predictor(np.zeros((1, held_out.shape[1]), np.float32), nothing)[0]
    assert found == pytest.approx(held_out.mean(0), abs=0.04)


@pytest.mark.parametrize("kind", [MaskedPerceptron, LastLogistic, NearestNeighbours])
def test_looking_at_the_sample_helps(kind, held_out):
    """From the first two exits the later ones are foretold better than by their means."""
    fresh = samples(1000, seed=3)
    seen = np.zeros(fresh.shape, np.bool_)
    seen[:, :2] = True
    error, blind = (
        np.abs(each.fit(held_out, held_out)(fresh, seen) - fresh)[:, 2:].mean()
        for each in (kind, ExitMeans)
    )
    assert error < 0.6 * blind


def test_a_target_may_be_whether_exits_are_right(held_out):
    """Fitted to right and wrong answers, the perceptron tells the chance of being right."""
    rng = np.random.default_rng(4)
    right = (rng.random(held_out.shape) < held_out).astype(np.float32)
    found = MaskedPerceptron.fit(held_out, right)
    fresh = samples(2000, seed=5)
    seen = np.zeros(fresh.shape, np.bool_)
    seen[:, :3] = True
    expected = found(fresh, seen)[:, 3:]
    assert np.abs(expected - fresh[:, 3:]).mean() < 0.1
    assert expected.mean() == pytest.approx(fresh[:, 3:].mean(), abs=0.02)


def test_a_predictor_survives_as_arrays(held_out):
    """What ``to_arrays`` gives makes the same predictor again."""
    found = MaskedPerceptron.fit(held_out, held_out)
    again = MaskedPerceptron.from_arrays(found.to_arrays())
    seen = np.zeros(held_out.shape, np.bool_)
    assert (found(held_out, seen) == again(held_out, seen)).all()


def test_arrays_that_fit_no_predictor_are_refused(held_out):
    """Missing arrays, other shapes and numbers that are none are refused with what was expected."""
    arrays = MaskedPerceptron.fit(held_out, held_out).to_arrays()
    with pytest.raises(ValueError, match="missing"):
        MaskedPerceptron.from_arrays({"bias": arrays["bias"]})
    with pytest.raises(ValueError, match="expected arrays of"):
        MaskedPerceptron.from_arrays({**arrays, "bias": arrays["bias"][:-1]})
    with pytest.raises(ValueError, match="finite"):
        MaskedPerceptron.from_arrays({**arrays, "bias": np.full_like(arrays["bias"], np.nan)})


def test_a_block_without_an_exit_teaches_nothing():
    """Where a block has no exit, what stands there does not change what is expected of others."""
    held_out = samples(1000)
    there = np.array([True, False, True, True, True])
    odd = held_out.copy()
    odd[:, 1] = np.random.default_rng(6).random(len(odd))
    seen = np.zeros(held_out.shape, np.bool_)
    seen[:, 0] = True
    one, other = (
        MaskedPerceptron.fit(each, each, exits=there)(held_out, seen)[:, 2:]
        for each in (held_out, odd)
    )
    assert np.allclose(one, other, atol=1e-6)


def test_log_odds_are_finite():
    """Even of certain confidences log-odds are finite, and 0 of even chances."""
    found = log_odds(np.array([0.0, 0.5, 1.0]))
    assert np.isfinite(found).all()
    assert found[1] == pytest.approx(0, abs=1e-6)


def test_only_what_had_run_is_told(held_out):
    """Learnt from samples of which the first exit alone had run, it foretells from that one."""
    ran = np.zeros(held_out.shape, np.bool_)
    ran[:, 0] = True
    spoilt = np.where(ran, held_out, 0.5).astype(np.float32)
    learnt, misled = (MaskedPerceptron.fit(told, held_out, ran=ran) for told in (held_out, spoilt))
    fresh = samples(1000, seed=3)
    seen = np.zeros(fresh.shape, np.bool_)
    seen[:, 0] = True
    assert (learnt(fresh, seen) == misled(fresh, seen)).all()
    error = np.abs(learnt(fresh, seen) - fresh)[:, 1:].mean()
    assert error < np.abs(held_out.mean(0) - fresh)[:, 1:].mean()
