import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from xpi_ray.policies.utility import Weights

WEIGHTS = st.builds(Weights, satisfaction=st.floats(0, 10),
                    accuracy=st.floats(0, 10), edge_cost=st.floats(0, 10))  # fmt: skip


def test_by_default_time_and_truth_count_the_same():
    """An answer in time is worth 1, a right one 2, and 100 ms of the edge cost a tenth."""
    worth = Weights().utility([False, True, True, True], [True, False, True, True], [0, 0, 0, 100])
    assert worth == pytest.approx([0, 1, 2, 1.9])


@given(WEIGHTS, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1e3))
def test_more_is_better_and_dearer_is_worse(weights, in_time, right, edge_ms):
    """In each part, whatever the weights; chances count as the mean of what they are chances of."""
    worth = weights.utility(in_time, right, edge_ms)
    assert weights.utility(1.0, right, edge_ms) >= worth
    assert weights.utility(in_time, 1.0, edge_ms) >= worth
    assert weights.utility(in_time, right, 0.0) >= worth
    both = weights.utility([0.0, 1.0], right, edge_ms)
    assert worth == pytest.approx((1 - in_time) * both[0] + in_time * both[1], abs=1e-9)


def test_it_takes_any_shape():
    """One request or many."""
    assert Weights().utility(1, 1, 0).shape == ()
    assert Weights().utility(np.ones((2, 3)), 1, 0).shape == (2, 3)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
@pytest.mark.parametrize("name", Weights.model_fields)
def test_no_part_counts_less_than_nothing(name, value):
    """Or without bound."""
    with pytest.raises(ValidationError):
        Weights(**{name: value})
