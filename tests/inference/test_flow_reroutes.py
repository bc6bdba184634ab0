"""A router that knows of a full queue or a silent link goes another way than the plan's."""

import asyncio

import pytest

from xpi_ray.errors import DeadlineError
from xpi_ray.inference.answer import Status, Tier
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.edge import NOTHING_RAN
from xpi_ray.inference.flow import Flow
from xpi_ray.link.frame import unpack


@pytest.fixture
def busy(flow):
    """A flow that knows of a second's work before an edge's next request, and what a turn takes."""
    flow._backlog.replied(0.0, 0.5)
    flow._backlog.enter()
    flow._backlog.enter()
    return flow


async def test_a_busy_edge_leaves_the_image_to_the_cloud(busy, tiers, pixels, make_plan):
    """It is not asked; the image crosses the link whole, and the cloud runs all blocks."""
    answer = await busy.answer(pixels, make_plan(2), Budget(1_200))
    assert [(exit_.exit, exit_.tier.value) for exit_ in answer.exits] == [
        (exit_, "cloud") for exit_ in (1, 2, 3, 4)
    ]
    assert (answer.status, answer.partition) == (Status.COMPLETE, 0)
    assert unpack(tiers.frames[0]).partition == 0
    assert answer.frame_bytes == len(tiers.frames[0])
    assert not tiers.budgets_ms["edge"]


@pytest.mark.parametrize(("reroutes", "crosses"), [(True, True), (False, False)])
async def test_what_the_edge_could_not_begin_goes_to_the_cloud(
    tiers, tracing, pixels, make_plan, reroutes, crosses
):
    """Whole, and in time for it, if the site lets it."""

    async def edge(*request):
        return NOTHING_RAN

    flow = Flow(edge, tiers.cloud, b"8 bytes.", tracing, reroutes=reroutes)
    answer = await flow.answer(pixels, make_plan(2), Budget(1_000))
    assert bool(answer.exits) == crosses
    assert isinstance(answer.error, DeadlineError) != crosses
    assert answer.partition == (0 if crosses else 2)


async def test_what_has_the_time_waits_for_the_edge(busy, tiers, pixels, make_plan):
    """As planned."""
    answer = await busy.answer(pixels, make_plan(2), Budget(10_000))
    assert answer.partition == 2
    assert len(tiers.budgets_ms["edge"]) == 1


async def test_a_site_may_be_told_to_wait(tiers, tracing, pixels, make_plan):
    """Then every request has its turn at the edge, however late."""
    flow = Flow(tiers.edge, tiers.cloud, b"8 bytes.", tracing, reroutes=False)
    flow._backlog.replied(0.0, 10.0)
    answer = await flow.answer(pixels, make_plan(4), Budget(1_000))
    assert (answer.status, answer.partition) == (Status.COMPLETE, 4)


@pytest.mark.parametrize(("budget_ms", "asked"), [(1_200, 1), (900, 0)])
async def test_a_link_that_cannot_carry_it_is_not_tried(
    busy, tiers, pixels, make_plan, budget_ms, asked
):
    """A request stays in the edge's queue then if its turn may come; else it is no burden there."""
    for second in range(20):
        busy._link.observe(float(second), 500, 0.01 + 8 * 500 / 1e3)
    answer = await busy.answer(pixels, make_plan(4), Budget(budget_ms))
    assert len(tiers.budgets_ms["edge"]) == asked
    assert not tiers.frames
    assert isinstance(answer.error, DeadlineError) == (not asked)


async def test_nor_is_a_cloud_that_takes_too_long(busy, tiers, pixels, make_plan):
    """What crossings spent in the cloud of late is counted."""
    busy._cloud_ms.append(2_000.0)
    answer = await busy.answer(pixels, make_plan(4), Budget(1_200))
    assert (answer.partition, tiers.frames) == (4, [])


async def test_turns_are_learnt_from_replies(flow, tiers, pixels, make_plan):
    """Those of an edge that is slow, or does not answer in time, let later requests go round it."""
    assert flow._backlog.turn_ms == 0
    await flow.answer(pixels, make_plan(4), Budget(10_000))
    assert 0 < flow._backlog.turn_ms < 1_000
    tiers.fault["edge"] = 3_600.0
    before_ms = flow._backlog.turn_ms
    late = await flow.answer(pixels, make_plan(4), Budget(100))
    assert isinstance(late.error, DeadlineError)
    assert flow._backlog.turn_ms > before_ms
    assert flow._backlog.wait_ms == 0


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
    await flow.answer(pixels, make_plan(2), Budget(300))
    await asyncio.gather(*(flow.answer(pixels, make_plan(2), Budget(300)) for _ in range(2)))
    assert len(tiers.frames) == 3
