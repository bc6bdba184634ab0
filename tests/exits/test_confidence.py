import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from xpi_ray.exits.confidence import FEW_CLASSES, exit_entropy, normalised_entropy

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
SHAPES = npst.array_shapes(min_dims=1, max_dims=2, min_side=2, max_side=30)


@given(logits=npst.arrays(np.float32, SHAPES, elements=st.floats(-60, 60, width=32)))
def test_agrees_with_scipy(logits):
    """It is scipy's entropy of scipy's softmax over ln K."""
    expected = entropy(softmax(logits.astype(np.float64), axis=-1), axis=-1)
    expected = expected / np.log(logits.shape[-1])
    assert normalised_entropy(logits) == pytest.approx(expected, abs=1e-9)


@given(logits=npst.arrays(np.float32, SHAPES, elements=FINITE))
def test_lies_in_0_to_1_for_any_finite_logits(logits):
    """Neither the largest nor the smallest floats overflow, and rounding stays inside."""
    share = normalised_entropy(logits)
    assert np.shape(share) == logits.shape[:-1]
    assert (np.asarray(share) >= 0).all()
    assert (np.asarray(share) <= 1).all()


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_ends_of_the_scale(classes):
    """Equal logits have no idea, one far above the others is sure."""
    logits = np.zeros(classes, np.float32)
    assert normalised_entropy(logits) == pytest.approx(1)
    logits[1] = 1e4
    assert normalised_entropy(logits) == 0


def test_a_batch_is_its_samples():
    """Each row of (n, K) gives what it gives alone."""
    logits = np.random.default_rng(0).normal(scale=5, size=(20, 10)).astype(np.float32)
    alone = [float(normalised_entropy(row)) for row in logits]
    assert normalised_entropy(logits).tolist() == pytest.approx(alone)


@given(
    logits=npst.arrays(np.float32, st.integers(2, FEW_CLASSES + 5), elements=FINITE),
)
def test_one_exit_is_as_sure_as_the_array_says(logits):
    """Plain floats and arrays give the same entropy, on both sides of the few classes."""
    assert exit_entropy(logits) == pytest.approx(float(normalised_entropy(logits)), abs=1e-12)
    assert 0 <= exit_entropy(logits) <= 1
