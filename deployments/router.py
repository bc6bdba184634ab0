"""The router: a site's ingress. It turns HTTP into requests and answers each by its deadline.

HTTP ─► Routes ─► Handlers.parse ─► PlanKeeper ─► Flow (edge, cloud) ─► Handlers.render ─► HTTP
                                                    └─► RequestRecord ─► scheduler, metrics
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path

from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from deployments.args import CLOUD_APP, SCHEDULER_APP, SiteArgs
from deployments.calls import CloudHandle, EdgeHandle, SchedulerHandle
from deployments.edge import EdgeExecutor
from deployments.memory import settle
from deployments.metrics import Metrics
from deployments.policy_store import find_store
from deployments.routes import Routes
from xpi_ray.api.handlers import Handlers, HttpReply
from xpi_ray.api.problem import problem
from xpi_ray.api.schema import ModelFacts
from xpi_ray.bundle import Bundle
from xpi_ray.errors import RequestError, TooLargeError
from xpi_ray.inference.answer import Answer
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.edge import Pixels
from xpi_ray.inference.elastic import ElasticEnd, ElasticExit
from xpi_ray.inference.flow import CloudCall, Flow
from xpi_ray.inference.shaped import ShapedCloud
from xpi_ray.link.traces import read
from xpi_ray.policies.keeper import PlanKeeper
from xpi_ray.policies.plan import Plan, PlanBook
from xpi_ray.telemetry.records import RecordBuffer
from xpi_ray.telemetry.tracing import SpanKind, Tracing

logger = logging.getLogger("ray.serve")

STORE_TIMEOUT_S = 1.0
IMAGES_IN_FLIGHT = 8  # of one request, so that a batch does not crowd others out
RECORDS = 10_000  # kept while no scheduler takes them
MODEL = "/v2/models/{model}"
VERSION = MODEL + "/versions/{version}"


class Router:
    """Answers requests with the site's edge and the cloud; works without the scheduler.

    Args:
        args: The site's arguments.
        edge: Handle of the site's edge executor; None runs its part in this process.
    """

    def __init__(self, args: SiteArgs, edge: DeploymentHandle | None) -> None:
        bundle = Bundle.load(args.bundle)
        manifest, network = bundle.manifest, bundle.network
        self._site = args.site
        self._model = manifest.name
        self._report_period_s = args.report_period_s
        self._tracing = Tracing("router")
        self._edge = EdgeExecutor(args, bundle) if edge is None else EdgeHandle(edge)
        self._flow = Flow(
            self._edge.run,
            _cloud(args),
            bundle.digest,
            self._tracing,
            args.best_effort,
            args.answers,
            args.goes_on,
            self._edge.begin,
            args.reroutes,
            bundle.ladder.levels,
        )
        self._keeper = PlanKeeper(
            _static_plan(manifest.static_plan, args),
            args.slo_classes,
            network.num_blocks,
            bundle.num_levels,
        )
        facts = ModelFacts(
            name=manifest.name,
            version=manifest.version,
            labels=manifest.labels,
            image_shape=(3, *network.image_size),
            num_blocks=network.num_blocks,
        )
        self._handlers = Handlers(facts, args.default_deadline_ms, args.maximum_deadline_ms)
        self._records = RecordBuffer(RECORDS)
        self._metrics = Metrics()
        self._routes = self._table()
        self._reporting = asyncio.get_running_loop().create_task(self._report())
        settle()

    def _table(self) -> Routes:
        return Routes(
            [
                ("POST", "/v1/classify", self._classify),
                ("POST", "/v1/classify/stream", self._stream),
                ("POST", f"{MODEL}/infer", self._infer),
                ("POST", f"{VERSION}/infer", self._infer),
                ("GET", "/v2", self._server_metadata),
                ("GET", "/v2/health/live", self._live),
                ("GET", "/v2/health/ready", self._ready),
                ("GET", MODEL, self._model_metadata),
                ("GET", VERSION, self._model_metadata),
                ("GET", f"{MODEL}/ready", self._model_ready),
                ("GET", f"{VERSION}/ready", self._model_ready),
            ]
        )

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request."""
        path = request.scope["path"]
        with self._tracing.span(
            "xpi.request", request.headers.get("traceparent"), SpanKind.SERVER
        ) as span:
            request.state.span, request.state.received_s = span, time.perf_counter()
            try:
                handle, parameters = self._routes.find(request)
                reply = await handle(request, **parameters)
                if isinstance(reply, Response):
                    return reply
            except Exception as err:  # problem() tells the client's faults from ours
                if not isinstance(err, RequestError):
                    logger.exception("%s %s failed", request.method, path)
                reply = problem(err, path)
            span.set_http(request.method, path, request.scope["scheme"], reply.status)
        return Response(reply.body, reply.status, reply.headers)

    async def set_plans(self, book: PlanBook) -> int:
        """Go by ``book`` from now on; returns the version now in hand, as acknowledgement."""
        return self._keeper.adopt(book)

    async def _classify(self, request: Request) -> HttpReply:
        body = await _read_body(request, self._handlers.max_classify_bytes)
        # Decoding a large photo takes long enough to hold others up.
        call = await asyncio.to_thread(
            self._handlers.parse_classify, _headers(request), _query(request), body
        )
        answer = await self._answer(
            request, call.image, call.deadline.ms, call.file, call.decode_image_ms
        )
        return self._handlers.render_classify(call, answer)

    async def _stream(self, request: Request) -> Response:
        """Exits as they come; whoever closes the connection stops the compute."""
        body = await _read_body(request, self._handlers.max_classify_bytes)
        call = await asyncio.to_thread(
            self._handlers.parse_stream, _headers(request), _query(request), body
        )
        spent_ms = (time.perf_counter() - request.state.received_s) * 1000
        traceparent = request.state.span.traceparent
        parts = self._edge.stream(call.image, call.stops, spent_ms, traceparent)
        first = await anext(parts)  # what is wrong with the request shows here, and in the status
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(
            self._events(first, parts), headers=headers, media_type="text/event-stream"
        )

    async def _events(
        self, first: ElasticExit | ElasticEnd, parts: AsyncGenerator[ElasticExit | ElasticEnd]
    ) -> AsyncIterator[bytes]:
        try:
            yield self._handlers.render_part(first)
            async for part in parts:
                yield self._handlers.render_part(part)
        finally:
            await parts.aclose()

    async def preempt(self) -> int:
        """End all that runs at the edge at once, with the answers in hand; how many that was."""
        return await self._edge.preempt()

    async def _infer(self, request: Request, model: str, version: str | None = None) -> HttpReply:
        body = await _read_body(request, self._handlers.max_infer_bytes)
        call = self._handlers.parse_infer(model, version, _headers(request), body)
        if len(call.images) == 1:
            answers = [await self._answer(request, call.images[0], call.deadline.ms)]
        else:
            answers = await self._answer_batch(request, call.images, call.deadline.ms)
        return self._handlers.render_infer(call, answers)

    async def _answer_batch(
        self, request: Request, images: Pixels, deadline_ms: float
    ) -> list[Answer]:
        """Answer (n, 3, H, W), some at a time; the first that fails ends the others."""
        turn = asyncio.Semaphore(IMAGES_IN_FLIGHT)

        async def answer(pixels: Pixels) -> Answer:
            async with turn:
                return await self._answer(request, pixels, deadline_ms)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(answer(pixels)) for pixels in images]
        except* RequestError as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _answer(
        self,
        request: Request,
        pixels: Pixels,
        deadline_ms: float,
        file: bytes = b"",
        decode_image_ms: float = 0.0,
    ) -> Answer:
        """Answer one image and leave its record."""
        span = request.state.span
        spent_ms = (time.perf_counter() - request.state.received_s) * 1000
        budget = Budget(deadline_ms, spent_ms=spent_ms)
        slo_class, plan = self._keeper.plan_for(deadline_ms)
        request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
        answer = await self._flow.answer(pixels, plan, budget, span.traceparent, file)
        answer.stages.decode_image_ms = decode_image_ms
        record = answer.record(request_id, self._model, slo_class)
        self._records.add(record)
        if answer.error is not None:
            raise answer.error
        span.set(
            exit=record.exit,
            tier=record.tier,
            entropy=record.entropy,
            plan_version=record.plan_version,
            status=record.status,
            partition=record.partition,
            level=record.level,
            frame_bytes=record.frame_bytes,
            deadline_ms=record.deadline_ms,
            budget_left_ms=record.budget_left_ms,
        )
        return answer

    async def _live(self, request: Request) -> HttpReply:
        return self._handlers.live()

    async def _ready(self, request: Request) -> HttpReply:
        return self._handlers.ready(is_ready=True)

    async def _server_metadata(self, request: Request) -> HttpReply:
        return self._handlers.server_metadata()

    async def _model_metadata(
        self, request: Request, model: str, version: str | None = None
    ) -> HttpReply:
        return self._handlers.model_metadata(model, version)

    async def _model_ready(
        self, request: Request, model: str, version: str | None = None
    ) -> HttpReply:
        return self._handlers.model_ready(model, version, is_ready=True)

    async def _report(self) -> None:
        """Pull the plans that were made before this replica, then report for ever."""
        try:
            await self._pull_plans()
        except Exception:  # the next push brings them
            logger.warning("no plans from the store; going by the static plan", exc_info=True)
        scheduler = SchedulerHandle(DeploymentHandle("Scheduler", SCHEDULER_APP))
        while True:
            records = self._records.drain()
            for record in records:  # here and not in each request, which would wait for it
                self._metrics.count(record)
            # What nobody takes is lost: without a scheduler, plans run out and requests go on.
            await scheduler.report(self._site, records)
            await asyncio.sleep(self._report_period_s)

    async def _pull_plans(self) -> None:
        store = find_store()
        if store is None:
            return
        found = await asyncio.wait_for(store.get.remote(self._site), STORE_TIMEOUT_S)
        if found is not None:
            book, age_s = found
            self._keeper.adopt(book, age_s)


def _cloud(args: SiteArgs) -> CloudCall:
    """The cloud, behind the real link or one held to a trace."""
    cloud = CloudHandle(DeploymentHandle("CloudExecutor", CLOUD_APP))
    if args.link_trace is None:
        return cloud
    return ShapedCloud(cloud, read(Path(args.link_trace)), args.link_round_trip_ms)


def _query(request: Request) -> str:
    query: bytes = request.scope["query_string"]
    return query.decode("latin-1")


def _headers(request: Request) -> Mapping[str, str]:
    raw: list[tuple[bytes, bytes]] = request.scope["headers"]  # lower case by ASGI
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}


async def _read_body(request: Request, limit_bytes: int) -> bytes:
    """Read the body, and no more of it than is allowed.

    Raises:
        TooLargeError: It is larger than ``limit_bytes``.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise TooLargeError(f"the body must be at most {limit_bytes} bytes; it is larger")
        chunks.append(chunk)
    return b"".join(chunks)


def _static_plan(plan: Plan, args: SiteArgs) -> Plan:
    """The bundle's static plan, as far as the site does not say otherwise."""
    changes: dict[str, object] = {}
    if args.partition is not None:
        changes["partition"] = args.partition
    if not args.early_exit:
        changes["thresholds"] = (0.0,) * len(plan.thresholds)
    return plan.model_copy(update=changes)
