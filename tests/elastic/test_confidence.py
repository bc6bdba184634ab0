import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from xpi_ray.elastic.confidence import confidence, fit_temperatures


def drawn(temperature, count=4000, classes=10, seed=0):
    """Logits, and labels drawn by their softmax at another temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (count, classes))
    chances = softmax(logits / temperature, axis=1).cumsum(1)
    labels = (rng.random((count, 1)) > chances).sum(1)
    return logits, np.minimum(labels, classes - 1)


def test_confidence_is_the_top_softmax():
    """It equals SciPy's softmax of the scaled logits, at its greatest."""
    logits = np.random.default_rng(1).normal(0, 30, (5, 3, 10)).astype(np.float32)
    temperature = np.array([0.5, 1.0, 2.0])
    expected = softmax(logits.astype(np.float64) / temperature[:, None], axis=-1).max(-1)
    assert confidence(logits, temperature) == pytest.approx(expected)


def test_huge_logits_do_not_overflow():
    """Logits of any size give a confidence of at most 1."""
    assert confidence(np.array([1e30, -1e30, 0.0]), 1.0) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(temperature):
    """Labels that were drawn at a temperature bring it back."""
    logits, labels = drawn(temperature)
    (found,) = fit_temperatures(logits[:, None], labels)
    assert found == pytest.approx(temperature, rel=0.1)


def test_no_temperature_has_less_cross_entropy():
    """SciPy's minimiser finds none better."""
    logits, labels = drawn(2.5, seed=2)
    (found,) = fit_temperatures(logits[:, None], labels)

    def loss(log_temperature):
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -scaled[np.arange(len(labels)), labels].mean()

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    assert loss(np.log(found)) == pytest.approx(best.fun, abs=1e-6)


def test_calibrated_confidence_is_the_share_of_right_answers():
    """Over samples of about the same confidence, about that share is right."""
    logits, labels = drawn(2.0, count=20_000, seed=3)
    temperatures = fit_temperatures(logits[:, None], labels)
    sure = confidence(logits[:, None], temperatures)[:, 0]
    right = logits.argmax(1) == labels
    for low in (0.3, 0.5, 0.7, 0.9):
        chosen = (sure >= low) & (sure < low + 0.1)
        assert right[chosen].mean() == pytest.approx(sure[chosen].mean(), abs=0.03)


def test_each_exit_has_a_temperature_of_its_own():
    """Of two exits that are bold and shy each gets its own."""
    logits, labels = drawn(1.0, seed=4)
    found = fit_temperatures(np.stack([3 * logits, logits / 3], axis=1), labels)
    assert found == pytest.approx([3, 1 / 3], rel=0.1)
