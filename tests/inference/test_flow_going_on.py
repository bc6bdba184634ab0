"""An edge that goes on while a frame is in flight answers for a cloud that does not."""

import asyncio
from dataclasses import asdict

import pytest

from xpi_ray.errors import OverloadError, TierLostError
from xpi_ray.inference.answer import Status
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.flow import Flow

DIGEST = b"8 bytes."
HOUR_S = 3_600.0
EDGE = [(exit_, "edge") for exit_ in range(1, 5)]
CLOUD = [(exit_, "cloud") for exit_ in range(1, 5)]


def exits_of(answer):
    """Exit numbers and tiers, in order."""
    return [(exit_.exit, exit_.tier.value) for exit_ in answer.exits]


async def others():
    """Tasks that run beside the test's own, once those that end had a moment."""
    for _ in range(3):
        await asyncio.sleep(0)
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.fixture
def flow(tiers, tracing):
    """A router whose edge goes on as far as it can."""
    tiers.beyond = 4
    return Flow(tiers.edge, tiers.cloud, DIGEST, tracing, goes_on=True, begin=tiers.begin)


@pytest.mark.parametrize("partition", [0, 2])
@pytest.mark.parametrize("fault", [TierLostError("gone"), OverloadError("full"), HOUR_S])
async def test_it_answers_where_the_cloud_does_not(
    flow, tiers, pixels, make_plan, partition, fault
):
    """Gone, full or late: the edge came to the last exit meanwhile, also of a whole image."""
    tiers.fault["cloud"] = fault
    answer = await flow.answer(pixels, make_plan(partition), Budget(300))
    assert (answer.status, exits_of(answer)) == (Status.COMPLETE, EDGE)
    assert (answer.edge_blocks, answer.cloud_blocks, answer.partition) == (4, 0, partition)
    assert answer.frame_bytes > 0
    stages = asdict(answer.stages)
    total_ms = stages.pop("total_ms")
    assert answer.stages.edge_ms > 0
    assert sum(stages.values()) <= total_ms + 0.1
    assert not await others()


async def test_what_it_has_when_time_runs_out_answers(flow, tiers, pixels, make_plan):
    """One more exit than at the partition, as it came no further."""
    tiers.fault["cloud"], tiers.beyond = HOUR_S, 1
    answer = await flow.answer(pixels, make_plan(2), Budget(300))
    assert (answer.status, exits_of(answer)) == (Status.BEST_EFFORT, EDGE[:3])
    assert not await others()


async def test_a_cloud_out_of_time_is_none(flow, tiers, pixels, make_plan):
    """It replies without an exit, and the edge's are told as if it had not replied."""
    tiers.cloud_side._pace._step_ms[3] = 1e9
    answer = await flow.answer(pixels, make_plan(2), Budget(10_000))
    assert (answer.status, exits_of(answer)) == (Status.COMPLETE, EDGE)
    assert answer.stages.link_ms == answer.stages.decode_ms == 0
    assert answer.link_bps > 0


@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.parametrize("partition", [0, 2])
async def test_a_cloud_that_answers_stops_it(flow, tiers, pixels, make_plan, partition, beyond):
    """The answer is as if the edge had not gone on."""
    tiers.beyond = beyond
    answer = await flow.answer(pixels, make_plan(partition), Budget(10_000))
    assert exits_of(answer) == [*EDGE[:partition], *CLOUD[partition:]]
    assert (answer.edge_blocks, answer.cloud_blocks) == (partition, 4 - partition)
    assert not await others()


async def test_a_cloud_that_is_left_alone_does_not_stop_it(flow, tiers, pixels, make_plan):
    """After a loss the cloud is not even asked."""
    tiers.fault["cloud"] = TierLostError("gone")
    for _ in range(2):
        answer = await flow.answer(pixels, make_plan(2), Budget(10_000))
        assert (answer.status, exits_of(answer)) == (Status.COMPLETE, EDGE)
    assert [tier for tier, _ in tiers.asked].count("cloud") == 1


async def test_a_request_that_is_given_up_leaves_nothing_running(flow, tiers, pixels, make_plan):
    """Its edge stops with it."""
    tiers.fault["cloud"], tiers.beyond = HOUR_S, 1
    asked = asyncio.ensure_future(flow.answer(pixels, make_plan(2), Budget(1e6)))
    while not tiers.frames:
        await asyncio.sleep(0)
    assert await others() > {asked}
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert not await others()
