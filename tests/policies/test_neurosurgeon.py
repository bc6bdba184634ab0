import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.policies.neurosurgeon import Neurosurgeon
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass

SLO = SloClass(name="any", deadline_ms=1.0)


@given(
    seed=st.integers(0, 20),
    seen=st.builds(
        Observation,
        link_bps=st.floats(1e4, 1e9),
        round_trip_ms=st.floats(0, 100),
        cloud_slowdown=st.floats(0.5, 30),
        edge_slowdown=st.floats(0.5, 30),
        edge_wait_ms=st.floats(0, 100),
    ),
    least=st.integers(0, 4),
)
def test_no_other_partition_is_quicker(
    make_outcomes, make_timetable, latency_ms, seed, seen, least
):
    """Of those that are allowed, by bandwidth and the cloud's load; no request leaves early."""
    outcomes = make_outcomes(seed)
    decision = Neurosurgeon(make_timetable(outcomes), least).decide(seen, SLO)
    times = {
        p: latency_ms(
            outcomes, p, 4, seen.link_bps, seen.round_trip_ms, slow_cloud=seen.cloud_slowdown
        )
        for p in range(least, 5)
    }
    assert times[decision.partition] == pytest.approx(min(times.values()))
    assert decision.thresholds == (0.0,) * 4
    assert decision.level == 0


@pytest.mark.parametrize(
    ("seen", "partition"),
    [
        ({"link_bps": 1e9, "round_trip_ms": 0}, 0),
        ({"link_bps": 1e4, "round_trip_ms": 50}, 4),
        ({"link_bps": 1e9, "round_trip_ms": 0, "cloud_slowdown": 50}, 4),
    ],
)
def test_it_flees_a_slow_link_and_a_busy_cloud(make_outcomes, make_timetable, seen, partition):
    """And sends the image where the link is quick and the cloud idle."""
    policy = Neurosurgeon(make_timetable(make_outcomes(0)))
    assert policy.decide(Observation(**seen), SLO).partition == partition
