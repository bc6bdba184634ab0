"""A plain network, whose blocks have no logits to hand on and not all an exit, is served as any."""

import pytest
import torch

from xpi_ray.errors import DeadlineError, TierLostError, UnavailableError
from xpi_ray.inference.answer import Status
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.flow import Flow

HOUR_S = 3_600.0


@pytest.fixture
def flow(plain_tiers, tracing):
    """The router's side; exits are 2 and 4."""
    return Flow(plain_tiers.edge, plain_tiers.cloud, b"8 bytes.", tracing)


@pytest.mark.parametrize("partition", range(5))
async def test_it_gives_the_exits_that_it_has(flow, plain_network, pixels, make_plan, partition):
    """Wherever it is split; blocks are counted whether they have one or not."""
    answer = await flow.answer(pixels, make_plan(partition), Budget(10_000))
    assert (answer.status, [exit_.exit for exit_ in answer.exits]) == (Status.COMPLETE, [2, 4])
    assert (answer.edge_blocks, answer.cloud_blocks) == (partition, 4 - partition)
    expected = plain_network(torch.from_numpy(pixels)[None])[-1][0]
    assert answer.best.logits == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (TierLostError("gone"), UnavailableError, "neither edge nor cloud"),
        (HOUR_S, DeadlineError, "the first exit"),
    ],
)
async def test_the_edges_best_exit_may_lie_before_the_partition(
    flow, plain_tiers, pixels, make_plan, check_refusal, fault, error, message
):
    """Behind block 3 it is exit 2; behind block 1 there is none yet, and so no answer."""
    plain_tiers.fault["cloud"] = fault
    answer = await flow.answer(pixels, make_plan(1), Budget(300))
    check_refusal(answer, error, message)
    answer = await flow.answer(pixels, make_plan(3), Budget(300))
    assert answer.status is Status.BEST_EFFORT
    assert (answer.best.exit, answer.edge_blocks, answer.cloud_blocks) == (2, 3, 0)
