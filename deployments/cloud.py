"""The cloud executor: a replica on a cloud node that resumes requests at block p+1.

Router ─► CloudExecutor.resume ─► CloudSide.admit ─┐
                  ▲                                 ├─► drive: pick, advance, settle, repeat
                  └───────── CloudReply ◄───────────┘
"""

import asyncio
from collections.abc import Sequence

import numpy as np
import torch

from deployments.args import CloudArgs
from deployments.memory import settle
from deployments.placement import CLOUD
from deployments.profiling import here, profile_names
from xpi_ray.bundle import Bundle
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.cloud import CloudReply, CloudSide, Job
from xpi_ray.inference.edge import image_frame
from xpi_ray.inference.pace import Pace
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.telemetry.tracing import SpanKind, Tracing

WARM_UP_RUNS = 5


class CloudExecutor:
    """Batches what waits at the same block."""

    def __init__(self, args: CloudArgs) -> None:
        torch.set_num_threads(args.threads)
        bundle = Bundle.load(args.bundle)
        network = bundle.network.prepare()
        trusted = bundle.outcomes.edge_trusted()

        def side(block_ms: Sequence[float]) -> CloudSide:
            pace = Pace(block_ms)
            return CloudSide(network, bundle.ladder, bundle.digest, pace, trusted, args.max_batch)

        bundle.ladder.warm_up(bundle.manifest.static_plan.level)
        total_ms = _warm_up(side([0.0] * network.num_blocks), network, bundle.digest)
        profile = here(bundle.manifest.profile_of(*profile_names(CLOUD)), total_ms)
        self._side = side(profile.block_ms)
        self._tracing = Tracing("cloud")
        self._answers: dict[Job, asyncio.Future[CloudReply]] = {}
        self._driving: asyncio.Task[None] | None = None
        settle()

    async def resume(
        self, frame: bytes, thresholds: Sequence[float], budget_ms: float, traceparent: str
    ) -> CloudReply:
        """Run one request's later blocks; the budget is what the router had left."""
        budget = Budget(budget_ms)
        with self._tracing.span("xpi.cloud", traceparent, SpanKind.SERVER) as span:
            job = self._side.admit(frame, thresholds, budget)
            self._answers[job] = asyncio.get_running_loop().create_future()
            if self._driving is None or self._driving.done():
                self._driving = asyncio.create_task(self._drive())
            try:
                reply = await self._answers[job]
            finally:
                self._side.drop(job)
                self._answers.pop(job, None)
            span.set(
                exit=reply.exits[-1].exit if reply.exits else 0,
                budget_left_ms=budget.left_ms,
                cloud_wait_ms=reply.cloud_wait_ms,
                decode_ms=reply.decode_ms,
                cloud_ms=reply.cloud_ms,
            )
        return reply

    async def _drive(self) -> None:
        """Run batches until nobody waits."""
        while self._side.waiting:
            batch = self._side.pick()
            try:
                self._side.advance(batch)
            except Exception as err:  # whatever it is belongs to the batch's callers
                for job in batch:
                    job.done = True
                    self._resolve(job, err)
            for job in self._side.settle(batch):
                self._resolve(job, job.reply())
            await asyncio.sleep(0)  # newcomers are admitted between blocks

    def _resolve(self, job: Job, outcome: CloudReply | Exception) -> None:
        answer = self._answers.get(job)
        if answer is None or answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


def _warm_up(side: CloudSide, network: ProgressiveNetwork, digest: bytes) -> float:
    """Pay for first runs now, not in the first request; returns what the quickest took, in ms."""
    frame = image_frame(np.zeros((3, *network.image_size), np.uint8), digest)
    taken_ms = []
    for _ in range(WARM_UP_RUNS):
        job = side.admit(frame, (0.0,) * network.num_blocks, Budget(60_000))
        while side.waiting:
            batch = side.pick()
            side.advance(batch)
            side.settle(batch)
        taken_ms.append(job.cloud_ms)
    return min(taken_ms)
