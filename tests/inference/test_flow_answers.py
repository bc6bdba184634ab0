"""A site says whether an unsure exit may answer, and which exit does."""

import pytest

from xpi_ray.errors import DeadlineError, OverloadError, TierLostError, UnavailableError
from xpi_ray.inference.answer import Status, Tier
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.flow import Flow
from xpi_ray.link.estimator import LinkEstimator

HOUR_S = 3_600.0
LATE = "does not allow a sure exit or the last one"


@pytest.fixture
def strict(tiers, tracing):
    """A router that gives no unsure answer but the last exit's."""
    return Flow(tiers.edge, tiers.cloud, b"8 bytes.", tracing, best_effort=False)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (TierLostError("gone"), UnavailableError, "neither edge nor cloud"),
        (OverloadError("full"), UnavailableError, "neither edge nor cloud"),
        (HOUR_S, DeadlineError, LATE),
    ],
)
async def test_without_best_effort_no_unsure_exit_answers(
    strict, tiers, pixels, make_plan, check_refusal, fault, error, message
):
    """The edge's exits are in hand, but none is sure; a cloud that is gone is told from time."""
    tiers.fault["cloud"] = fault
    answer = await strict.answer(pixels, make_plan(2), Budget(300))
    check_refusal(answer, error, message)
    assert len(answer.exits) == 2


@pytest.mark.parametrize(("tier", "block"), [("edge", 2), ("cloud", 3)])
async def test_without_best_effort_time_that_is_too_short_is_said_so(
    strict, tiers, pixels, make_plan, check_refusal, tier, block
):
    """Wherever the next block could not be in time, and though there is time left."""
    getattr(tiers, f"{tier}_side")._pace._step_ms[block + 1] = 1e9
    answer = await strict.answer(pixels, make_plan(3), Budget(10_000))
    check_refusal(answer, DeadlineError, f"10000 ms {LATE}")


@pytest.mark.parametrize(("partition", "leave_at"), [(3, 2), (2, 3), (2, None), (4, None)])
async def test_without_best_effort_complete_answers_are_as_ever(
    strict, flow, pixels, make_plan, partition, leave_at
):
    """A sure exit, or the last one, at the edge or in the cloud."""
    plan = make_plan(partition, leave_at=leave_at)
    found = await strict.answer(pixels, plan, Budget(10_000))
    expected = await flow.answer(pixels, plan, Budget(10_000))
    assert (found.status, found.error) == (Status.COMPLETE, None)
    assert [exit_[:2] for exit_ in found.exits] == [exit_[:2] for exit_ in expected.exits]


async def test_a_late_cloud_tells_of_the_link_though_nothing_answers(
    strict, tiers, pixels, make_plan
):
    """Else a scheduler would believe in a link that has failed."""
    tiers.fault["cloud"] = HOUR_S
    believed = []
    for _ in range(4):
        record = (await strict.answer(pixels, make_plan(2), Budget(150))).record("1", "m", "s")
        assert (record.status, record.frame_bytes) == ("missed", len(tiers.frames[-1]))
        believed.append(record.link_bps)
    assert 0 < believed[-1] < LinkEstimator().estimate(0.0).bandwidth_bps


async def test_the_surest_exit_of_both_tiers_answers(tiers, tracing, images, make_plan):
    """Where that is asked for, whatever the cloud trusts."""
    flow = Flow(tiers.edge, tiers.cloud, b"8 bytes.", tracing, answers="surest")
    found = set()
    for image in images:
        answer = await flow.answer(image.numpy(), make_plan(2), Budget(10_000))
        assert len(answer.exits) == 4
        assert answer.best.entropy == min(exit_.entropy for exit_ in answer.exits)
        found.add(answer.best.tier)
    assert found == set(Tier)
