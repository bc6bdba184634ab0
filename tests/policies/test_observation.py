import pytest
from pydantic import ValidationError

from xpi_ray.policies.observation import DRIFT, Observation, Watch
from xpi_ray.profiles.table import Profile
from xpi_ray.telemetry.records import RequestRecord

PROFILE = Profile(
    machine="a toaster", threads=1, block_ms=(1.0, 2.0, 3.0, 4.0), encode_ms=0.5, decode_ms=0.25
)
PRIOR = Observation()


def record(**facts):
    """Return a record of one answered request."""
    plain = {
        "request_id": "1", "model": "m", "slo_class": "s", "deadline_ms": 100, "status": "complete",
        "plan_version": 1, "partition": 2, "level": 1, "total_ms": 20, "budget_left_ms": 80,
    }  # fmt: skip
    return RequestRecord(**{**plain, **facts})


@pytest.fixture
def watch():
    """A watch that has seen nothing yet."""
    return Watch(PROFILE, PRIOR)


def test_nothing_seen_is_the_prior(watch):
    """Without a record the observation stays what was assumed, with no arrivals."""
    assert watch.observe([], 1.0) == PRIOR


def test_requests_that_stayed_tell_of_the_edge_alone(watch):
    """Slow-down is time over profile, the wait a median, the rate a count over the period."""
    seen = watch.observe(
        [
            record(edge_blocks=1, edge_ms=4.0, edge_wait_ms=1.0),
            record(edge_blocks=2, edge_ms=8.0, edge_wait_ms=9.0),
            record(edge_blocks=2, edge_ms=9.0, edge_wait_ms=3.0),
        ],
        period_s=2.0,
    )
    assert seen.edge_slowdown == pytest.approx(21 / 7)
    assert seen.edge_wait_ms == 3.0
    assert seen.arrivals_rps == 1.5
    rest = {"cloud_slowdown", "cloud_wait_ms", "round_trip_ms", "link_bps"}
    assert seen.model_dump(include=rest) == PRIOR.model_dump(include=rest)


def test_requests_that_crossed_tell_of_link_and_cloud(watch):
    """Slow-down is time over profile; of the link the latest belief counts."""
    seen = watch.observe(
        [
            record(edge_blocks=2, edge_ms=3.0, cloud_blocks=2, cloud_ms=14.0, link_ms=10.0,
                   cloud_wait_ms=1.0, link_bps=9e6, round_trip_ms=11.0),
            record(edge_blocks=1, edge_ms=1.0, cloud_blocks=1, cloud_ms=4.0, link_ms=18.0,
                   cloud_wait_ms=5.0, link_bps=4e6, round_trip_ms=10.0),
        ],
        period_s=1.0,
    )  # fmt: skip
    assert seen.edge_slowdown == pytest.approx(1.0)
    assert seen.cloud_slowdown == pytest.approx((14 + 4) / (3 + 4 + 2))
    assert seen.cloud_wait_ms == 3.0
    assert seen.round_trip_ms == 10.0
    assert seen.link_bps == 4e6


def test_a_request_that_waited_in_vain_tells_of_the_link(watch):
    """Though nothing came back from the cloud, it was sent, and the router learnt by it."""
    seen = watch.observe(
        [
            record(edge_ms=1.0, edge_blocks=2, cloud_blocks=2, cloud_ms=14.0, link_bps=9e6,
                   round_trip_ms=11.0),
            record(edge_ms=1.0, edge_blocks=2, link_bps=2e5, round_trip_ms=12.0),
            record(edge_ms=1.0, edge_blocks=2),
        ],
        period_s=1.0,
    )  # fmt: skip
    assert (seen.link_bps, seen.round_trip_ms) == (2e5, 12.0)


def test_a_request_that_skipped_the_edge_tells_nothing_of_it(watch):
    """Partition 0 runs all blocks in the cloud."""
    seen = watch.observe([record(cloud_blocks=4, cloud_ms=20.0, link_bps=1e6)], 1.0)
    assert seen.cloud_slowdown == pytest.approx(2.0)
    assert seen.edge_slowdown == PRIOR.edge_slowdown


def test_what_is_not_seen_drifts_back(watch):
    """An unseen quantity closes in on the prior by the same share every period."""
    slow = record(
        cloud_blocks=2,
        edge_blocks=2,
        edge_ms=30.0,
        cloud_ms=70.0,
        round_trip_ms=205.0,
        link_bps=1e6,
    )
    watch.observe([slow], 1.0)
    for period in range(1, 60):
        seen = watch.observe([], 1.0)
        assert seen.cloud_slowdown == pytest.approx(1 + 9 * (1 - DRIFT) ** period)
        assert seen.round_trip_ms == pytest.approx(5 + 200 * (1 - DRIFT) ** period)
        assert seen.arrivals_rps == 0
    assert seen.cloud_slowdown < 1.5


def test_what_is_seen_again_counts_at_once(watch):
    """A new measurement takes the place of the drifted one."""
    watch.observe([record(edge_blocks=1, edge_ms=9.0)], 1.0)
    assert watch.observe([record(edge_blocks=1, edge_ms=2.0)], 1.0).edge_slowdown == 2.0


@pytest.mark.parametrize("values", [{"link_bps": 0}, {"edge_slowdown": 0}, {"round_trip_ms": -1}])
def test_impossible_observations_are_refused(values):
    """No link is infinitely slow and no time is negative."""
    with pytest.raises(ValidationError):
        Observation(**values)
