"""Calls to edge and cloud over Ray, with Ray's failures translated into the project's errors.

Flow ─► EdgeHandle, CloudHandle ─► DeploymentHandle ─► replica
                     ▲ RayActorError, BackPressureError … ─► TierLostError, OverloadError
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Any, cast

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from xpi_ray.elastic.stop_times import StopTimes
from xpi_ray.errors import OverloadError, TierLostError
from xpi_ray.inference.cloud import CloudReply
from xpi_ray.inference.edge import NOTHING_RAN, EdgeReply, Pixels, Rest, Way
from xpi_ray.inference.elastic import ElasticEnd, ElasticExit
from xpi_ray.policies.plan import Plan
from xpi_ray.telemetry.records import RequestRecord

REPORT_TIMEOUT_S = 1.0


class EdgeHandle:
    """The edge's part, run by an edge executor replica."""

    def __init__(self, handle: DeploymentHandle) -> None:
        # By value: what is passed is small, and a store round trip would double the hop.
        self._handle = handle.options(_by_reference=False)

    async def run(
        self, pixels: Pixels, plan: Plan, budget_ms: float, traceparent: str, way: Way
    ) -> EdgeReply:
        """Raise TierLostError when the replica died and OverloadError when the queue is full."""
        if not way.goes_on:
            call = self._handle.run.remote(pixels, plan, budget_ms, traceparent, way)
            return cast(EdgeReply, await _outcome(call, "edge"))
        replies: AsyncGenerator[EdgeReply] = self._parts(
            "run_on", pixels, plan, budget_ms, traceparent, way
        )
        first = await anext(replies)
        if first.crosses:
            return first._replace(rest=_rest(replies, first))
        await replies.aclose()
        return first

    def begin(self, pixels: Pixels, plan: Plan, budget_ms: float) -> Rest:
        """As ``EdgeExecutor.begin``."""
        return _rest(self._parts("run_on", pixels, plan, budget_ms, ""), NOTHING_RAN)

    def stream(
        self, pixels: Pixels, stops: StopTimes | None, spent_ms: float, traceparent: str
    ) -> AsyncGenerator[ElasticExit | ElasticEnd]:
        """As ``EdgeExecutor.stream``; raises as a call does."""
        return self._parts("stream", pixels, stops, spent_ms, traceparent)

    async def _parts(self, method: str, *request: object) -> AsyncGenerator[Any]:
        """What a method of the executor yields; closing the iterator stops it there."""
        call = getattr(self._handle.options(stream=True), method).remote(*request)
        try:
            with _translated("edge"):
                async for part in call:
                    yield part
        finally:
            call.cancel()

    async def preempt(self) -> int:
        """As ``EdgeExecutor.preempt``, of all replicas."""
        with _translated("edge"):
            return sum(await self._handle.broadcast("preempt").results_async())


def _rest(replies: AsyncGenerator[EdgeReply], first: EdgeReply) -> Rest:
    """What another process goes on with, and how far it was when it last told."""
    last = first

    async def go_on() -> None:
        nonlocal last
        async with aclosing(replies):
            with suppress(TierLostError, OverloadError):  # what it told is kept
                async for reply in replies:
                    last = reply

    return Rest(go_on, lambda: last)


class CloudHandle:
    """The cloud's part, run by a cloud executor replica."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle.options(_by_reference=False)

    async def __call__(
        self, frame: bytes, thresholds: Sequence[float], budget_ms: float, traceparent: str
    ) -> CloudReply:
        """Raise TierLostError when the replica died and OverloadError when the queue is full."""
        call = self._handle.resume.remote(frame, thresholds, budget_ms, traceparent)
        return cast(CloudReply, await _outcome(call, "cloud"))


class SchedulerHandle:
    """Tells the scheduler what a site saw; requests never wait for it."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def report(self, site: str, records: Sequence[RequestRecord]) -> bool:
        """Whether the scheduler took the records, within ``REPORT_TIMEOUT_S``."""
        call = self._handle.report.remote(site, records)
        waiting = asyncio.ensure_future(_outcome(call, "scheduler"))
        done, _ = await asyncio.wait({waiting}, timeout=REPORT_TIMEOUT_S)
        if not done:
            waiting.cancel()
            return False
        return not waiting.cancelled() and waiting.exception() is None


async def _outcome(call: DeploymentResponse, tier: str) -> object:
    """Wait for a call; a caller that gives up takes the call back."""
    try:
        with _translated(tier):
            return await call
    except asyncio.CancelledError:
        call.cancel()
        raise


@contextmanager
def _translated(tier: str) -> Iterator[None]:
    """Ray's failures as the project's."""
    try:
        yield
    except BackPressureError as err:
        raise OverloadError(f"too many requests wait for the {tier} already; try again") from err
    except (RayActorError, DeploymentUnavailableError) as err:
        raise TierLostError(f"the {tier} replica that had the request is gone") from err
