"""A router that knows of a full queue or a silent link goes another way than the plan's."""

import asyncio

import pytest

from xpi_ray.inference.answer import Status, Tier
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.edge import EdgeReply
from xpi_ray.inference.flow import Flow
from xpi_ray.link.frame import unpack
from xpi_ray.telemetry.tracing import Tracing

NOTHING_RAN = EdgeReply((), 0, b"", False, 0.0, 0.0, 0.0)


@pytest.fixture
def told():
    """Whether each request could spill over."""
    return []


@pytest.fixture
def busy(tiers, told):
    """Makes a flow whose edge has no time for a request that can spill over."""

    def make(**changes):
        async def edge(pixels, plan, budget_ms, traceparent, way):
            told.append(way.spills)
            if way.spills:
                return NOTHING_RAN
            return await tiers.edge(pixels, plan, budget_ms, traceparent, way)

        return Flow(edge, tiers.cloud, b"8 bytes.", Tracing("router"), **changes)

    return make


async def test_a_busy_edge_leaves_the_image_to_the_cloud(busy, tiers, pixels, make_plan):
    """It crosses the link whole, and the cloud runs all blocks."""
    answer = await busy().answer(pixels, make_plan(2), Budget(10_000))
    assert [(exit_.exit, exit_.tier.value) for exit_ in answer.exits] == [
        (exit_, "cloud") for exit_ in (1, 2, 3, 4)
    ]
    assert (answer.status, answer.partition) == (Status.COMPLETE, 0)
    assert unpack(tiers.frames[0]).partition == 0
    assert answer.frame_bytes == len(tiers.frames[0])


async def test_it_is_said_if_a_request_may_not_spill(busy, told, pixels, make_plan):
    """Where the site says so, every request has its turn at the edge."""
    answer = await busy(reroutes=False).answer(pixels, make_plan(4), Budget(10_000))
    assert (answer.status, answer.partition, told) == (Status.COMPLETE, 4, [False])


@pytest.mark.parametrize(("rate_bps", "spills"), [(1e9, True), (1e3, False)])
async def test_a_link_that_cannot_carry_it_is_not_tried(
    busy, told, pixels, make_plan, rate_bps, spills
):
    """A request stays in the edge's queue if its image would be late over the link as well."""
    flow = busy()
    for second in range(20):
        flow._link.observe(float(second), 500, 0.01 + 8 * 500 / rate_bps)
    await flow.answer(pixels, make_plan(4), Budget(500))
    assert told == [spills]


async def test_nor_is_a_cloud_that_takes_too_long(busy, told, pixels, make_plan):
    """What crossings spent in the cloud of late is counted."""
    flow = busy()
    flow._cloud_ms.append(1_000.0)
    await flow.answer(pixels, make_plan(4), Budget(900))
    await flow.answer(pixels, make_plan(4), Budget(9_000))
    assert told == [False, True]


async def test_a_silent_link_is_tried_by_one_request_at_a_time(flow, tiers, pixels, make_plan):
    """Once one waited in vain, and while another waits, later blocks run at the edge instead."""
    tiers.fault["cloud"] = 3_600.0
    first = await flow.answer(pixels, make_plan(2), Budget(100))
    assert (first.status, first.frame_bytes > 0) == (Status.BEST_EFFORT, True)
    trying = asyncio.ensure_future(flow.answer(pixels, make_plan(2), Budget(400)))
    while len(tiers.frames) < 2:
        await asyncio.sleep(0.001)
    for partition in (2, 0):
        other = await flow.answer(pixels, make_plan(partition), Budget(10_000))
        assert (other.status, other.frame_bytes) == (Status.COMPLETE, 0)
        assert [exit_.tier for exit_ in other.exits] == [Tier.EDGE] * 4
    assert (await trying).frame_bytes > 0
    assert len(tiers.frames) == 2


async def test_an_answer_ends_the_silence(flow, tiers, pixels, make_plan):
    """Then all cross again, several at a time."""
    tiers.fault["cloud"] = 3_600.0
    await flow.answer(pixels, make_plan(2), Budget(100))
    tiers.fault["cloud"] = None
    await flow.answer(pixels, make_plan(2), Budget(10_000))
    tiers.fault["cloud"] = 0.05
    both = [flow.answer(pixels, make_plan(2), Budget(10_000)) for _ in range(2)]
    assert [len(answer.exits) for answer in await asyncio.gather(*both)] == [4, 4]
    assert len(tiers.frames) == 4


async def test_a_site_may_be_told_to_try_on(tiers, tracing, pixels, make_plan):
    """Then every request crosses that the plan lets cross."""
    flow = Flow(tiers.edge, tiers.cloud, b"8 bytes.", tracing, reroutes=False)
    tiers.fault["cloud"] = 3_600.0
    await flow.answer(pixels, make_plan(2), Budget(100))
    await asyncio.gather(*(flow.answer(pixels, make_plan(2), Budget(100)) for _ in range(2)))
    assert len(tiers.frames) == 3
