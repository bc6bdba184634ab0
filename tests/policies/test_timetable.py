import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.policies.timetable import exits_of, leaving_at

FACTORS = st.floats(0.2, 30)


@given(
    seed=st.integers(0, 20),
    link_bps=st.floats(1e4, 1e9),
    crossing_ms=st.floats(0, 100),
    slow_edge=FACTORS,
    slow_cloud=FACTORS,
)
def test_times_are_those_of_going_block_by_block(
    make_outcomes, make_timetable, latency_ms, seed, link_bps, crossing_ms, slow_edge, slow_cloud
):
    """For every partition, also the image itself and none at all, and every exit."""
    outcomes = make_outcomes(seed)
    found = make_timetable(outcomes).latency_ms(link_bps, crossing_ms, slow_edge, slow_cloud)
    factors = link_bps, crossing_ms, slow_edge, slow_cloud
    expected = [[latency_ms(outcomes, p, e, *factors) for e in range(1, 5)] for p in range(5)]
    assert found == pytest.approx(np.array(expected))


def test_work_at_the_edge_is_what_neither_link_nor_cloud_take(make_outcomes, make_timetable):
    """With a link and a cloud that take no time, it is all that is left."""
    timetable = make_timetable(make_outcomes(0))
    instant = timetable.latency_ms(1e30, 0.0, cloud_slowdown=1e-30)
    assert timetable.edge_ms == pytest.approx(instant)


def test_exits_are_told_by_their_entropies(make_outcomes, make_sparse):
    """A block whose entropies are beyond 1 has none."""
    assert exits_of(make_outcomes(0)).tolist() == [1, 2, 3, 4]
    assert exits_of(make_sparse(0)).tolist() == [2, 3, 4]


def test_thresholds_can_let_all_leave_at_one_exit():
    """They are 1 there and 0 elsewhere, at the most exact level."""
    assert leaving_at(3, 2, 4) == (2, (0.0, 0.0, 1.0, 0.0), 0)
