"""The edge executor: runs blocks 1..p on an edge node, as a replica or within the router.

    Router ─► EdgeExecutor.run ─► EdgeRun, a block a step ─► EdgeReply
                   │                 └─ goes_on: later blocks while nobody else needs the edge
                   └─ stream ─► ElasticRun, likewise ─► exits as they come, ElasticEnd

Quick blocks run on the event loop itself, which gets a turn between them: a thread beside it would
cost more in hand-overs than a block takes. Those of a slow machine run in one, so that requests are
read, and answers leave, while they do.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from deployments.args import SiteArgs
from deployments.memory import settle
from deployments.placement import edge_of
from deployments.profiling import here, profile_names
from xpi_ray.bundle import Bundle
from xpi_ray.elastic.stop_times import StopTimes
from xpi_ray.errors import NotFoundError
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.edge import (
    PLANNED,
    EdgeReply,
    EdgeRun,
    EdgeSide,
    Pixels,
    Rest,
    Way,
)
from xpi_ray.inference.elastic import ElasticEnd, ElasticExit, ElasticRun
from xpi_ray.inference.pace import Pace, is_long
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.networks.slowed import SlowedNetwork
from xpi_ray.policies.plan import Plan
from xpi_ray.telemetry.tracing import SpanKind, Tracing

WARM_UP_RUNS = 5
TURN_MS = 2.0  # of blocks, after which the event loop gets its turns
TURNS = 8  # so many does it take to read a request, or to send an answer
NOTHING_MORE = ElasticEnd(False, 0, 0.0)  # after all that a stream says
PAUSE_S = 0.001  # before a block that nobody waits for, so that requests that came are read


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
        # The stand-in for a weaker machine slows blocks alone.
        self._pace = Pace(profile.block_ms, profile.encode_ms / args.edge_slowdown)
        self._side = EdgeSide(network, bundle.ladder, bundle.digest, self._pace)
        self._network, self._elastic = network, bundle.elastic
        if self._elastic is not None:  # else the first stream waits until the planner is compiled
            blank = np.zeros((3, *network.image_size), np.uint8)
            ElasticRun(network, self._elastic, self._pace, blank, None)
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "blocks")
        self._beside: asyncio.Future[Any] | None = None  # what the thread does
        self._here = 0  # requests that work or wait
        self._idle = asyncio.Event()
        self._idle.set()
        self._spare_turn = asyncio.Lock()
        self._running: set[EdgeRun | ElasticRun] = set()
        self._preempting: asyncio.Future[None] | None = None  # as soon as anyone waits for it
        self._tracing = Tracing("edge")
        settle()

    async def run(
        self, pixels: Pixels, plan: Plan, budget_ms: float, traceparent: str, way: Way = PLANNED
    ) -> EdgeReply:
        """Run one request's blocks here.

        Args:
            pixels: The image.
            plan: What to do.
            budget_ms: What the router had left.
            traceparent: Of the span that the edge's belongs to.
            way: How it may go beside that.
        """
        reply, run = await self._run(pixels, plan, budget_ms, traceparent, way)
        return reply if run is None else reply._replace(rest=self._rest(run))

    async def run_on(
        self, pixels: Pixels, plan: Plan, budget_ms: float, traceparent: str, way: Way = PLANNED
    ) -> AsyncGenerator[EdgeReply]:
        """As ``run``, for another process; closing the iterator stops what goes on.

        Yields:
            The reply, except at partition 0, where the image is in flight at once; then one after
            each block behind the partition.
        """
        if plan.partition:
            reply, run = await self._run(pixels, plan, budget_ms, traceparent, way)
            yield reply
        else:
            run = self._side.start(pixels, plan, Budget(budget_ms))
        if run is not None:
            run.go_on()
            async for _ in self._steps_on(run):
                yield run.reply()

    async def _run(
        self, pixels: Pixels, plan: Plan, budget_ms: float, traceparent: str, way: Way
    ) -> tuple[EdgeReply, EdgeRun | None]:
        """What ``run`` replies, and the run where it goes on."""
        budget = Budget(budget_ms)
        with self._tracing.span("xpi.edge", traceparent, SpanKind.SERVER) as span:
            async with self._my_turn() as wait_ms:
                run = self._side.start(pixels, plan, budget)
                if not way.crosses:
                    run.go_on(lambda: self._here == 1)
                with self._preemptible(run):
                    reply = await self._go_through(run, budget)
                reply = reply._replace(wait_ms=wait_ms + reply.wait_ms)
            span.set(
                exit=reply.exits[-1].exit if reply.exits else 0,
                budget_left_ms=budget.left_ms,
                frame_bytes=len(reply.frame),
                edge_ms=reply.edge_ms,
                encode_ms=reply.encode_ms,
            )
        return reply, run if way.goes_on and reply.crosses else None

    async def stream(
        self, pixels: Pixels, stops: StopTimes | None, spent_ms: float, traceparent: str
    ) -> AsyncGenerator[ElasticExit | ElasticEnd]:
        """Run a request that may be stopped at any time; closing the iterator stops it.

        Args:
            pixels: The image.
            stops: When it may be stopped, since it began; None if nobody knows.
            spent_ms: How long ago it began.
            traceparent: Of the span that the edge's belongs to.

        Yields:
            Each exit as soon as it ran, and how the request ended.

        Raises:
            NotFoundError: The bundle does not know what plans go by.
        """
        if self._elastic is None:
            raise NotFoundError(
                "this model has no elastic mode, as its bundle holds no elastic.safetensors; "
                "`xpi train` makes bundles that do"
            )
        said: asyncio.Queue[ElasticExit | ElasticEnd] = asyncio.Queue()
        doing = asyncio.create_task(
            self._run_elastic(pixels, stops, Budget(0.0, spent_ms=spent_ms), traceparent, said)
        )
        doing.add_done_callback(lambda _: said.put_nowait(NOTHING_MORE))
        try:
            while (part := await said.get()) is not NOTHING_MORE:
                yield part
            await doing  # for what went wrong
        finally:
            doing.cancel()

    async def _run_elastic(
        self,
        pixels: Pixels,
        stops: StopTimes | None,
        begun: Budget,
        traceparent: str,
        said: asyncio.Queue[ElasticExit | ElasticEnd],
    ) -> None:
        """Run one request; the edge does not wait for whoever reads what it ``said``."""
        assert self._elastic is not None
        with self._tracing.span("xpi.edge", traceparent, SpanKind.SERVER) as span:
            async with self._my_turn():
                run = ElasticRun(
                    self._network, self._elastic, self._pace, pixels, stops, begun.spent_ms
                )
                with self._preemptible(run):
                    told = 0
                    try:
                        while await self._step(run):
                            for part in run.exits[told:]:
                                said.put_nowait(part)
                            told = len(run.exits)
                            await _give_way()
                    finally:  # of a closed stream too
                        exit_ = run.exits[-1].answer.exit if run.exits else 0
                        span.set(exit=exit_, blocks=run.blocks)
            said.put_nowait(run.end)

    async def _step(self, run: ElasticRun) -> bool:
        """Take one step, beside the loop if it is long; a pre-emption does not wait for it."""
        if not is_long(run.expected_ms):
            return run.step()
        doing = asyncio.get_running_loop().run_in_executor(self._thread, run.step)
        self._beside = doing
        await self._done_or_preempted(doing)
        return doing.done() and doing.result()

    async def _done_or_preempted(
        self, doing: asyncio.Future[Any], timeout_s: float | None = None
    ) -> None:
        """Wait for what the thread does, no longer than a time or until a pre-emption."""
        if self._preempting is None:
            self._preempting = asyncio.get_running_loop().create_future()
        waited = {doing, self._preempting}
        await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def preempt(self) -> int:
        """End all requests that run here, at once, with the answers they hold; returns how many.

        What waits for its turn runs after them.
        """
        for run in self._running:
            run.stop()
        if self._preempting is not None:
            self._preempting.set_result(None)
            self._preempting = None
        return len(self._running)

    @contextmanager
    def _preemptible(self, run: EdgeRun | ElasticRun) -> Iterator[None]:
        """``preempt`` ends the run while the context lasts, and leaving it does."""
        self._running.add(run)
        try:
            yield
        finally:
            self._running.remove(run)
            if isinstance(run, ElasticRun):
                run.stop()

    @asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[float]:
        """Have the edge to oneself, as sharing would make all late; how long that took, in ms."""
        came_s = time.perf_counter()
        self._here += 1
        self._idle.clear()
        try:
            await self._turn.acquire()
            try:
                await _give_way()  # to the answer of the one before
                yield (time.perf_counter() - came_s) * 1000
            finally:
                self._pass_turn()
        finally:
            self._here -= 1
            if not self._here:
                self._idle.set()

    async def _go_through(self, run: EdgeRun, budget: Budget) -> EdgeReply:
        """Step through a run; what is left of it when a long step comes is done beside the loop."""
        begun, turn = Budget(0.0), Budget(TURN_MS)
        while not is_long(run.expected_ms):
            if not run.step():
                return run.reply()
            if turn.left_ms < 0 < budget.left_ms:  # without a budget it is over
                await _give_way()
                turn = Budget(TURN_MS)
        return await self._finish_beside(run, budget, begun)

    async def _finish_beside(self, run: EdgeRun, budget: Budget, begun: Budget) -> EdgeReply:
        """Take a run's last steps in the thread; what is not done in time is not waited for."""
        doing = asyncio.get_running_loop().run_in_executor(self._thread, run.finish)
        self._beside = doing
        await self._done_or_preempted(doing, max(budget.left_ms, 0.0) / 1000)
        if doing.done():
            return doing.result()._replace(overrun_ms=0.0)
        held, late_ms = run.reply(), max(-budget.left_ms, 0.0)
        return held._replace(wait_ms=begun.spent_ms - held.edge_ms, overrun_ms=late_ms)

    def _pass_turn(self) -> None:
        """Let the next request begin, once the thread is done with this one."""
        if self._beside is None or self._beside.done():
            self._turn.release()
        else:
            self._beside.add_done_callback(lambda _: self._turn.release())

    def begin(self, pixels: Pixels, plan: Plan, budget_ms: float) -> Rest:
        """Let a request whose image is in flight run its blocks here, from the first one on."""
        return self._rest(self._side.start(pixels, plan, Budget(budget_ms)))

    def _rest(self, run: EdgeRun) -> Rest:
        run.go_on()
        return Rest(partial(self._run_on, run), run.reply)

    async def _run_on(self, run: EdgeRun) -> None:
        """Run blocks behind the partition."""
        async for _ in self._steps_on(run):
            pass

    async def _steps_on(self, run: EdgeRun) -> AsyncGenerator[None]:
        """Run blocks behind the partition, each while no other request is here; oldest first."""
        async with self._spare_turn:
            while True:
                await asyncio.sleep(PAUSE_S)
                while self._here:
                    await self._idle.wait()
                if is_long(run.expected_ms):
                    loop = asyncio.get_running_loop()
                    ran = await loop.run_in_executor(self._thread, run.step)
                else:
                    ran = run.step()
                if not ran:
                    return
                yield


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
