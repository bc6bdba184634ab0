import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.exits.rule import first_sure_exit, is_sure

# Few distinct values, so that entropies often equal thresholds.
SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    ("entropy", "threshold", "sure"),
    [(0.2, 0.3, True), (0.3, 0.3, True), (0.31, 0.3, False), (0.0, 0.0, True), (1.0, 1.0, True)],
)
def test_sure_is_at_or_below_the_threshold(entropy, threshold, sure):
    """The threshold itself is sure."""
    assert is_sure(entropy, threshold) is sure


def test_nan_is_never_sure():
    """An entropy that is not a number does not end a request."""
    assert not is_sure(float("nan"), 1.0)


@given(st.data())
def test_each_sample_leaves_where_a_loop_would(data):
    """It is the first exit at which ``is_sure`` holds, else N."""
    n, exits = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    entropy = data.draw(npst.arrays(np.float64, (n, exits), elements=SHARES))
    thresholds = data.draw(npst.arrays(np.float64, exits, elements=SHARES))
    expected = [
        next((i for i in range(exits) if is_sure(row[i], thresholds[i])), exits - 1) + 1
        for row in entropy
    ]
    assert first_sure_exit(entropy, thresholds).tolist() == expected
