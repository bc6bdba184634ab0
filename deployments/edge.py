"""The edge executor: runs blocks 1..p on an edge node, as a replica or within the router.

    Router ─► EdgeExecutor.run ─► EdgeRun, a block a step ─► EdgeReply

Blocks run on the event loop itself, which gets a turn between them: a thread beside it would cost
more in hand-overs than a block takes.
"""

import asyncio
import time

import numpy as np
import torch

from deployments.args import SiteArgs
from deployments.placement import edge_of
from deployments.profiling import here, profile_names
from xpi_ray.bundle import Bundle
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.edge import EdgeReply, EdgeSide, Pixels
from xpi_ray.inference.pace import Pace
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.networks.slowed import SlowedNetwork
from xpi_ray.policies.plan import Plan
from xpi_ray.telemetry.tracing import SpanKind, Tracing

WARM_UP_RUNS = 5
TURN_MS = 2.0  # of blocks, after which the event loop gets its turns
TURNS = 8  # so many does it take to read a request, or to send an answer


class EdgeExecutor:
    """One at a time, in order of arrival; each request's budget counts its wait."""

    def __init__(self, args: SiteArgs, bundle: Bundle | None = None) -> None:
        torch.set_num_threads(args.edge_threads)
        bundle = bundle or Bundle.load(args.bundle)  # within the router it is read already
        network: ProgressiveNetwork = bundle.network.prepare()
        if args.edge_slowdown > 1:
            network = SlowedNetwork(network, args.edge_slowdown)
        total_ms = _warm_up(network, bundle)
        profile = bundle.manifest.profile_of(*profile_names(edge_of(args.site)))
        profile = here(profile.slowed(args.edge_slowdown / profile.slowdown), total_ms)
        self._side = EdgeSide(network, bundle.ladder, bundle.digest, Pace(profile.block_ms))
        self._turn = asyncio.Lock()
        self._tracing = Tracing("edge")

    async def run(
        self, pixels: Pixels, plan: Plan, budget_ms: float, traceparent: str
    ) -> EdgeReply:
        """Run one request's blocks here; the budget is what the router had left."""
        budget, came_s = Budget(budget_ms), time.perf_counter()
        with self._tracing.span("xpi.edge", traceparent, SpanKind.SERVER) as span:
            async with self._turn:  # one at a time: sharing would make all of them late
                await _give_way()  # to the answer of the one before
                wait_ms = (time.perf_counter() - came_s) * 1000
                run = self._side.start(pixels, plan, budget)
                turn = Budget(TURN_MS)
                while run.step():
                    if turn.left_ms < 0 and budget.left_ms > 0:  # else it is over, and answers
                        await _give_way()
                        turn = Budget(TURN_MS)
                reply = run.reply()._replace(wait_ms=wait_ms)
            span.set(
                exit=len(reply.exits),
                budget_left_ms=budget.left_ms,
                frame_bytes=len(reply.frame),
                edge_ms=reply.edge_ms,
                encode_ms=reply.encode_ms,
            )
        return reply


async def _give_way() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def _warm_up(network: ProgressiveNetwork, bundle: Bundle) -> float:
    """Pay for first runs now, not in the first request; returns what the quickest took, in ms."""
    blocks = network.num_blocks
    whole = bundle.manifest.static_plan.model_copy(
        update={"partition": blocks, "thresholds": (0.0,) * blocks}
    )
    bundle.ladder.warm_up(bundle.manifest.static_plan.level)
    side = EdgeSide(network, bundle.ladder, bundle.digest, Pace([0.0] * blocks))
    pixels = np.zeros((3, *network.image_size), np.uint8)
    return min(side.run(pixels, whole, Budget(60_000)).edge_ms for _ in range(WARM_UP_RUNS))
