import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from xpi_ray.policies.observation import DRIFT, SEEN, Observation, Watch, seen
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
    assert watch.observe(seen([]), 1.0) == PRIOR


def test_requests_that_stayed_tell_of_the_edge_alone(watch):
    """Slow-down is time over profile, the wait a median, the rate a count over the period."""
    found = watch.observe(
        seen(
            [
                record(edge_blocks=1, edge_ms=4.0, edge_wait_ms=1.0),
                record(edge_blocks=2, edge_ms=8.0, edge_wait_ms=9.0),
                record(edge_blocks=2, edge_ms=9.0, edge_wait_ms=3.0),
            ]
        ),
        period_s=2.0,
    )
    assert found.edge_slowdown == pytest.approx(21 / 7)
    assert found.edge_wait_ms == 3.0
    assert found.arrivals_rps == 1.5
    rest = {"cloud_slowdown", "cloud_wait_ms", "round_trip_ms", "link_bps"}
    assert found.model_dump(include=rest) == PRIOR.model_dump(include=rest)


def test_requests_that_crossed_tell_of_link_and_cloud(watch):
    """Slow-down is time over profile; of the link the latest belief counts."""
    found = watch.observe(
        seen(
            [
                record(edge_blocks=2, edge_ms=3.0, cloud_blocks=2, cloud_from=2, cloud_ms=14.0,
                       link_ms=10.0, cloud_wait_ms=1.0, link_bps=9e6, round_trip_ms=11.0),
                record(edge_blocks=1, edge_ms=1.0, cloud_blocks=1, cloud_from=1, cloud_ms=4.0,
                       link_ms=18.0, cloud_wait_ms=5.0, link_bps=4e6, round_trip_ms=10.0),
            ]
        ),
        period_s=1.0,
    )  # fmt: skip
    assert found.edge_slowdown == pytest.approx(1.0)
    assert found.cloud_slowdown == pytest.approx((14 + 4) / (3 + 4 + 2))
    assert found.cloud_wait_ms == 3.0
    assert found.round_trip_ms == 10.0
    assert found.link_bps == 4e6


def test_a_request_that_waited_in_vain_tells_of_the_link(watch):
    """Though nothing came back from the cloud, it was sent, and the router learnt by it."""
    found = watch.observe(
        seen(
            [
                record(edge_ms=1.0, edge_blocks=2, cloud_blocks=2, cloud_ms=14.0, link_bps=9e6,
                       round_trip_ms=11.0),
                record(edge_ms=1.0, edge_blocks=2, link_bps=2e5, round_trip_ms=12.0),
                record(edge_ms=1.0, edge_blocks=2),
            ]
        ),
        period_s=1.0,
    )  # fmt: skip
    assert (found.link_bps, found.round_trip_ms) == (2e5, 12.0)


def test_a_request_that_skipped_the_edge_tells_nothing_of_it(watch):
    """Partition 0 runs all blocks in the cloud."""
    found = watch.observe(seen([record(cloud_blocks=4, cloud_ms=20.0, link_bps=1e6)]), 1.0)
    assert found.cloud_slowdown == pytest.approx(2.0)
    assert found.edge_slowdown == PRIOR.edge_slowdown


def test_what_is_not_seen_drifts_back(watch):
    """An unseen quantity closes in on the prior by the same share every period."""
    slow = record(
        cloud_blocks=2,
        cloud_from=2,
        edge_blocks=2,
        edge_ms=30.0,
        cloud_ms=70.0,
        round_trip_ms=205.0,
        link_bps=1e6,
    )
    watch.observe(seen([slow]), 1.0)
    for period in range(1, 60):
        found = watch.observe(seen([]), 1.0)
        assert found.cloud_slowdown == pytest.approx(1 + 9 * (1 - DRIFT) ** period)
        assert found.round_trip_ms == pytest.approx(5 + 200 * (1 - DRIFT) ** period)
        assert found.arrivals_rps == 0
    assert found.cloud_slowdown < 1.5


def test_an_image_lets_the_cloud_begin_anew(watch):
    """Blocks that the edge ran are then among those whose time the cloud's is compared with."""
    image = record(edge_blocks=2, edge_ms=3.0, cloud_blocks=4, cloud_ms=20.0)
    assert watch.observe(seen([image]), 1.0).cloud_slowdown == 2.0


def test_only_what_was_encoded_tells_of_encoding(watch):
    """And while nothing is, it is taken to become as slow as the blocks do."""
    records = [record(edge_blocks=1, edge_ms=8.0, encode_ms=ms) for ms in (0.0, 0.0, 6.0)]
    assert watch.observe(seen(records), 1.0).encode_ms == 6.0
    for _ in range(200):
        found = watch.observe(seen([record(edge_blocks=1, edge_ms=8.0)]), 1.0)
    assert found.encode_ms == pytest.approx(8 / PRIOR.edge_slowdown * PRIOR.encode_ms, rel=1e-3)


def test_what_is_seen_again_counts_at_once(watch):
    """A new measurement takes the place of the drifted one."""
    watch.observe(seen([record(edge_blocks=1, edge_ms=9.0)]), 1.0)
    found = watch.observe(seen([record(edge_blocks=1, edge_ms=2.0)]), 1.0)
    assert found.edge_slowdown == 2.0


def test_every_request_tells_of_load_and_answers(watch):
    """Work per second, the deadlines' geometric mean, and how many, how deep and how sure."""
    found = watch.observe(
        seen(
            [
                record(exit=1, entropy=0.1, edge_blocks=1, edge_ms=100.0, deadline_ms=50),
                record(exit=4, entropy=0.4, edge_blocks=2, edge_ms=200.0, encode_ms=20.0,
                       cloud_blocks=2, cloud_ms=60.0, decode_ms=3.0, deadline_ms=200),
                record(exit=2, entropy=0.1, edge_blocks=2, edge_ms=200.0, budget_left_ms=-1,
                       deadline_ms=100),
                record(status="missed", deadline_ms=100),
            ]
        ),
        period_s=4.0,
    )  # fmt: skip
    assert found.edge_utilisation == pytest.approx(0.52 / 4)
    assert found.cloud_utilisation == pytest.approx(0.063 / 4)
    assert found.mean_deadline_ms == pytest.approx(100)
    assert found.missed == 0.5
    assert found.mean_exit == pytest.approx((1 + 4 + 2) / 3 / 4)
    assert found.surety == pytest.approx(1 - 0.6 / 3)
    assert (found.encode_ms, found.decode_ms) == (20.0, 3.0)


def test_without_an_answer_its_quality_is_as_before(watch):
    """Nobody knows how sure exits are that did not run."""
    found = watch.observe(seen([record(status="missed")]), 1.0)
    assert found.missed == 1
    assert (found.mean_exit, found.surety) == (PRIOR.mean_exit, PRIOR.surety)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "edge_blocks": st.integers(1, 4),
                "edge_ms": st.floats(0.01, 1e3),
                "edge_wait_ms": st.floats(0, 1e3),
                "deadline_ms": st.floats(1, 1e4),
                "exit": st.integers(0, 4),
                "entropy": st.floats(0, 1),
                "budget_left_ms": st.floats(-10, 100),
            }
        ),
        min_size=1,
        max_size=12,
    )
)
def test_what_is_seen_is_a_mean_or_a_median(facts):
    """For any requests, as the standard library reckons them."""
    found = Watch(PROFILE, PRIOR).observe(seen([record(**each) for each in facts]), 1.0)
    done = (0.0, 1.0, 3.0, 6.0, 10.0)
    profiled_ms = sum(done[each["edge_blocks"]] for each in facts)
    assert found.edge_slowdown == pytest.approx(sum(e["edge_ms"] for e in facts) / profiled_ms)
    assert found.edge_wait_ms == statistics.median(each["edge_wait_ms"] for each in facts)
    logs = [math.log(each["deadline_ms"]) for each in facts]
    assert found.mean_deadline_ms == pytest.approx(math.exp(statistics.fmean(logs)))
    good = [each["exit"] > 0 and each["budget_left_ms"] >= 0 for each in facts]
    assert found.missed == pytest.approx(1 - statistics.fmean(good))


def test_seen_fields_are_those_of_a_record():
    """Every one of them, as it is."""
    one = record(edge_ms=3.0, link_bps=7.0, exit=2)
    (row,) = seen([one])
    assert {name: row[name] for name in SEEN.names} == {
        name: getattr(one, name) for name in SEEN.names
    }


@pytest.mark.parametrize("values", [{"link_bps": 0}, {"edge_slowdown": 0}, {"round_trip_ms": -1}])
def test_impossible_observations_are_refused(values):
    """No link is infinitely slow and no time is negative."""
    with pytest.raises(ValidationError):
        Observation(**values)


def test_latency_is_the_mean_over_all_requests(watch):
    """Of late and unanswered ones too; it stays, drifting, where there are none."""
    told = [record(deadline_ms=100, budget_left_ms=left) for left in (80, 20, -30)]
    assert watch.observe(seen(told), 1.0).latency_ms == pytest.approx((20 + 80 + 130) / 3)
    after = watch.observe(seen([]), 1.0).latency_ms
    assert after == pytest.approx(230 / 3 + DRIFT * (PRIOR.latency_ms - 230 / 3))
