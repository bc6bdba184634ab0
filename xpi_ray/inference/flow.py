"""One request from the router's side: the edge, then the cloud with what is left of the budget.

    pixels, plan, budget ─► edge ─► sure? ─► Answer
                              └─ frame ─► cloud ─► Answer; late, dead or unsure: best exit in hand
                                   └─ Rest, where the edge goes on meanwhile ──────────┘

The edge and the cloud are given as calls, so that the flow is the same over Ray handles, in one
process, and in tests.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xpi_ray.errors import (
    CodecError,
    DeadlineError,
    FrameError,
    OverloadError,
    RequestError,
    TierLostError,
    UnavailableError,
)
from xpi_ray.inference.answer import Answer, Answers, Stages, Status, Tier
from xpi_ray.inference.backlog import Backlog
from xpi_ray.inference.budget import Budget, allows
from xpi_ray.inference.cloud import CloudReply
from xpi_ray.inference.edge import EdgeReply, Pixels, Rest, Way, image_frame
from xpi_ray.link.estimator import LinkEstimator, sendable_bytes, sending_ms
from xpi_ray.link.frame import cut
from xpi_ray.policies.plan import Plan
from xpi_ray.telemetry.tracing import SpanKind, Tracing

logger = logging.getLogger(__name__)

ANSWER_MS = (
    8.0  # kept back to read the request and send the answer: HTTP takes a client 3 ms, at times 8
)
REST_S = 2.0  # in which a tier that lost a request is left alone, about what a restart takes
RECENT_CROSSINGS = 32  # that tell what a call takes beside its work and its turn
EDGE_PRUDENCE = 0.9  # share of them that the next is as quick as: an edge that is late loses all
EDGE_LEAST_MS = 1.0  # kept back for it at least: a reply that comes as time is up is lost too
SPILL_PRUDENCE = 0.9  # likewise in the cloud, where a whole image has more blocks before it
CLOUD_PRUDENCE = 0.0  # the quickest counts: a late cloud costs only its own exits


class EdgeCall(Protocol):
    """Runs the edge's part somewhere."""

    def __call__(
        self, pixels: Pixels, plan: Plan, budget_ms: float, traceparent: str, way: Way
    ) -> Awaitable[EdgeReply]:
        """Raise TierLostError when the edge is gone and OverloadError when its queue is full."""
        ...


class CloudCall(Protocol):
    """Runs the cloud's part somewhere."""

    def __call__(
        self, frame: bytes, thresholds: Sequence[float], budget_ms: float, traceparent: str
    ) -> Awaitable[CloudReply]:
        """Raise TierLostError when the cloud is gone and OverloadError when its queue is full."""
        ...


Begin = Callable[[Pixels, Plan, float], Rest]
"""Begins a request at the edge while its image is in flight; the last is the budget, in ms."""


class Flow:
    """Answers one image at a time; safe to share between concurrent requests of one event loop.

    Args:
        edge: Runs the edge's part.
        cloud: Runs the cloud's part.
        digest: The bundle's identity, for the frame that holds the image itself.
        tracing: Where the span of the link goes.
        best_effort: Whether an exit answers that is neither sure nor the last; else that is an
            error.
        answers: Which exit does, of those that ran.
        goes_on: Whether the edge goes on while a frame is in flight. What it has then answers if
            the cloud sends no exit, as SPINN (MobiCom'20) does without a connection; a cloud that
            answers is believed whatever the edge came to, and the edge stopped.
        begin: Lets the edge go on at partition 0 too.
        reroutes: Whether a request may go another way than the plan's. What the edge has no time
            for goes to the cloud whole, if the link likely carries it; what cannot come to its turn
            there is not sent to it. Where a reply is in doubt,
            as the last one did not come or an image is likely late, the edge goes on meanwhile;
            and while one such request waits, others do not cross.
        levels: That the codec has; a plan's level beyond them sends the image.
    """

    def __init__(
        self,
        edge: EdgeCall,
        cloud: CloudCall,
        digest: bytes,
        tracing: Tracing,
        best_effort: bool = True,
        answers: Answers = "last",
        goes_on: bool = False,
        begin: Begin | None = None,
        reroutes: bool = True,
        levels: int | None = None,
    ) -> None:
        self._edge = edge
        self._cloud = cloud
        self._digest = digest
        self._tracing = tracing
        self._best_effort = best_effort
        self._answers = answers
        self._goes_on = goes_on
        self._begin = begin
        self._reroutes = reroutes
        self._levels = levels
        self._crossing = 0  # requests that wait for the cloud
        self._is_silent = False  # whether the last of them waited in vain
        self._rests_until_s = {Tier.EDGE: 0.0, Tier.CLOUD: 0.0}
        self._backlog = Backlog()
        self._link = LinkEstimator()
        self._cloud_ms: deque[float] = deque(maxlen=RECENT_CROSSINGS)
        self._crossings_ms: dict[Tier, deque[float]] = {
            tier: deque(maxlen=RECENT_CROSSINGS) for tier in Tier
        }

    async def answer(
        self,
        pixels: Pixels,
        plan: Plan,
        budget: Budget,
        traceparent: str = "",
        file: bytes = b"",
    ) -> Answer:
        """Answer one image by its deadline.

        Args:
            pixels: The image.
            plan: What to do.
            budget: The time left.
            traceparent: Of the span that the link's span belongs to.
            file: The client's own file, if there was one; it may cross the link instead of pixels.

        Returns:
            The answer, or one whose ``error`` says why there is none: DeadlineError where the
            deadline passed before any exit ran, or any that may answer; UnavailableError where
            neither the edge nor the cloud could run one; OverloadError where the edge's queue is
            full.
        """
        stages = Stages()
        answer = Answer([], Status.BEST_EFFORT, plan.partition, plan.level, plan.version)
        answer.stages, answer.deadline_ms = stages, budget.given_ms
        answer.answers = self._answers
        refused = False
        try:
            frame, rest = await self._run_edge(answer, pixels, plan, budget, traceparent, file)
            if frame:
                refused = await self._run_later(answer, frame, rest, plan, budget, traceparent)
        except OverloadError as err:
            answer.error = err
        else:
            answer.error = self._fault(answer, budget, refused)
        answer.budget_left_ms = budget.left_ms
        stages.total_ms = budget.spent_ms
        return answer

    def _fault(self, answer: Answer, budget: Budget, refused: bool) -> RequestError | None:
        """Why no exit that ran may answer, if so."""
        if answer.exits and (self._best_effort or answer.status is Status.COMPLETE):
            return None
        if refused and budget.allows(ANSWER_MS):
            return UnavailableError("neither edge nor cloud can answer now; try again")
        missed = "a sure exit or the last one" if answer.exits else "the first exit"
        return DeadlineError(
            f"the deadline of {budget.given_ms:g} ms does not allow {missed}; allow more time"
        )

    async def _run_edge(
        self,
        answer: Answer,
        pixels: Pixels,
        plan: Plan,
        budget: Budget,
        traceparent: str,
        file: bytes,
    ) -> tuple[bytes, Rest | None]:
        """Run the edge's part into ``answer``; the frame to send, if any, and how it goes on."""
        left_ms = budget.left_ms - ANSWER_MS
        if self._rests(Tier.EDGE):
            return self._send_whole(answer, pixels, file), None
        started = time.perf_counter()
        can_send = self._reroutes and self._can_send(started, left_ms, len(file) or pixels.nbytes)
        way = self._way(plan, can_send)
        if plan.partition == 0 and way.crosses:
            rest = self._begin(pixels, plan, left_ms) if way.goes_on and self._begin else None
            return self._send_whole(answer, pixels, file), rest
        if self._reroutes and not allows(left_ms, self._backlog.wait_ms + self._backlog.turn_ms):
            if can_send and way.crosses:
                return self._send_whole(answer, pixels, file), None
            if not allows(left_ms, self._backlog.wait_ms):
                return b"", None
        self._backlog.enter()
        try:
            async with asyncio.timeout(left_ms / 1000):
                there_ms = left_ms - max(self._crossing_ms(Tier.EDGE), EDGE_LEAST_MS)
                reply = await self._edge(pixels, plan, there_ms, traceparent, way)
        except TierLostError:
            self._rest(Tier.EDGE)
            return self._send_whole(answer, pixels, file), None
        except TimeoutError:
            self._backlog.timed_out(started, time.perf_counter())
            return b"", None
        finally:
            self._backlog.leave()
        stages = answer.stages
        stages.edge_ms, stages.encode_ms = reply.edge_ms, reply.encode_ms
        now_s = time.perf_counter()
        if reply.blocks <= plan.partition:  # those behind it give way to others
            self._backlog.replied(started, now_s)
        called_ms = (now_s - started) * 1000
        stages.edge_wait_ms = max(called_ms - reply.edge_ms - reply.encode_ms, 0.0)
        hop_ms = stages.edge_wait_ms - reply.wait_ms
        self._crossings_ms[Tier.EDGE].append(max(hop_ms + reply.overrun_ms, 0.0))
        answer.exits.extend(reply.exits)
        answer.edge_blocks = reply.blocks
        if reply.complete:
            answer.status = Status.COMPLETE
        if not reply.blocks and can_send and way.crosses:
            return self._send_whole(answer, pixels, file), None
        if reply.sends_image:
            return image_frame(pixels, self._digest, file), reply.rest
        answer.cloud_from = reply.blocks
        return reply.frame, reply.rest

    def _way(self, plan: Plan, can_send: bool) -> Way:
        """How a request may go whose image the link can likely carry in time, or not."""
        if not self._reroutes:
            return Way(goes_on=self._goes_on)
        is_image = plan.partition == 0 or (self._levels is not None and plan.level >= self._levels)
        doubtful = self._is_silent or (is_image and not can_send)
        return Way(not (doubtful and self._crossing), doubtful or self._goes_on)

    async def _run_later(
        self,
        answer: Answer,
        frame: bytes,
        rest: Rest | None,
        plan: Plan,
        budget: Budget,
        traceparent: str,
    ) -> bool:
        """Run later blocks into ``answer``; whether the cloud refused to.

        They run in the cloud, and where the edge goes on, there too in case the cloud sends none.
        """
        if rest is None:
            return await self._run_cloud(answer, frame, plan, budget, traceparent)
        going = asyncio.ensure_future(rest.go_on())
        try:
            refused = await self._run_cloud(answer, frame, plan, budget, traceparent)
            if not any(exit_.tier is Tier.CLOUD for exit_ in answer.exits):
                left_s = (budget.left_ms - ANSWER_MS) / 1000
                if left_s > 0:
                    await asyncio.wait({going}, timeout=left_s)
                _take(answer, rest.reply())
        finally:
            going.cancel()
        return refused

    async def _run_cloud(
        self, answer: Answer, frame: bytes, plan: Plan, budget: Budget, traceparent: str
    ) -> bool:
        """Run the cloud's part into ``answer``; whether the cloud refused to.

        With an exit in hand that is no failure. Nor is it a refusal that time is too short.
        """
        started = time.perf_counter()
        left_ms = budget.left_ms - ANSWER_MS
        there_ms = left_ms - self._crossing_ms(Tier.CLOUD)
        if there_ms <= 0:
            return False
        if self._rests(Tier.CLOUD):
            return True
        frame = cut(frame, self._most_bytes(started, left_ms))
        answer.frame_bytes = len(frame)
        self._crossing += 1
        with self._tracing.span("xpi.link", traceparent, SpanKind.CLIENT) as span:
            span.set(frame_bytes=len(frame), partition=answer.partition, level=answer.level)
            try:
                async with asyncio.timeout(left_ms / 1000):
                    reply = await self._cloud(frame, plan.thresholds, there_ms, span.traceparent)
            except (TierLostError, OverloadError, FrameError, CodecError, TimeoutError) as err:
                span.set(error=type(err).__name__)
                if isinstance(err, TierLostError):
                    self._rest(Tier.CLOUD)
                elif isinstance(err, TimeoutError):
                    self._is_silent = True
                    in_cloud_s = min(self._cloud_ms, default=0.0) / 1000
                    waited_s = time.perf_counter() - started - in_cloud_s
                    self._link.observe_late(started, len(frame), waited_s)
                    self._tell_link(answer)
                elif isinstance(err, FrameError | CodecError):
                    logger.error("the cloud refused a frame: %s", err)
                return not isinstance(err, TimeoutError)
            finally:
                self._crossing -= 1
        self._is_silent = False
        stages = answer.stages
        stages.cloud_wait_ms, stages.decode_ms = reply.cloud_wait_ms, reply.decode_ms
        stages.cloud_ms = reply.cloud_ms
        in_cloud_ms = reply.cloud_wait_ms + reply.decode_ms + reply.cloud_ms
        stages.link_ms = max((time.perf_counter() - started) * 1000 - in_cloud_ms, 0.0)
        self._crossings_ms[Tier.CLOUD].append(stages.link_ms)
        self._cloud_ms.append(in_cloud_ms)
        self._link.observe(started, len(frame), stages.link_ms / 1000)
        self._tell_link(answer)
        answer.edge_is_surer = reply.edge_is_surer and bool(answer.exits)
        before = answer.edge_blocks  # whose exits an image lets the cloud come to once more
        answer.exits.extend(exit_ for exit_ in reply.exits if exit_.exit > before)
        answer.cloud_blocks = reply.blocks
        if reply.complete:
            answer.status = Status.COMPLETE
        return False

    def _tell_link(self, answer: Answer) -> None:
        """Write what is believed of the link into an answer."""
        believed = self._link.estimate(time.perf_counter())
        answer.link_bps, answer.link_spread = believed.bandwidth_bps, believed.spread
        answer.round_trip_ms = believed.round_trip_s * 1000

    def _most_bytes(self, now_s: float, left_ms: float) -> float:
        """What the link likely carries in time for the cloud to answer; layers beyond are cut off.

        A link of which little is known is believed to be fast.
        """
        believed = self._link.estimate(now_s)
        in_cloud_s = min(self._cloud_ms, default=0.0) / 1000
        sending_s = left_ms / 1000 - in_cloud_s - believed.round_trip_s
        return sendable_bytes(believed.bandwidth_bps, believed.spread, sending_s)

    def _can_send(self, now_s: float, left_ms: float, size_bytes: int) -> bool:
        """Whether the link likely carries a whole image in time for the cloud to answer."""
        if self._rests(Tier.CLOUD):
            return False
        believed = self._link.estimate(now_s)
        in_cloud_ms = kept_back_ms(sorted(self._cloud_ms), SPILL_PRUDENCE)
        sent_ms = sending_ms(believed.bandwidth_bps, believed.spread, size_bytes)
        return allows(left_ms, sent_ms + 1000 * believed.round_trip_s + in_cloud_ms)

    def _crossing_ms(self, tier: Tier) -> float:
        """What a call takes there and back: a tier must be done that much before the deadline.

        To the edge belongs by how much its last block was later than expected.
        """
        prudence = EDGE_PRUDENCE if tier is Tier.EDGE else CLOUD_PRUDENCE
        return kept_back_ms(sorted(self._crossings_ms[tier]), prudence)

    def _rest(self, tier: Tier) -> None:
        """Leave a tier alone for a while: a call to one that is gone waits for its deadline."""
        self._rests_until_s[tier] = time.perf_counter() + REST_S

    def _rests(self, tier: Tier) -> bool:
        return time.perf_counter() < self._rests_until_s[tier]

    def _send_whole(self, answer: Answer, pixels: Pixels, file: bytes) -> bytes:
        """The frame by which the cloud may do it all."""
        answer.partition = 0
        return image_frame(pixels, self._digest, file)


def _take(answer: Answer, ran: EdgeReply) -> None:
    """Let an answer be what the edge has; what passed beside it in the cloud is not told."""
    answer.exits, answer.edge_blocks, answer.cloud_blocks = list(ran.exits), ran.blocks, 0
    stages = answer.stages
    stages.edge_ms = ran.edge_ms
    stages.link_ms = stages.cloud_wait_ms = stages.decode_ms = stages.cloud_ms = 0.0
    if ran.complete:
        answer.status = Status.COMPLETE


def kept_back_ms(crossings_ms: Sequence[float] | NDArray[np.float64], prudence: float) -> float:
    """Time to keep back for a crossing, of recent ones in rising order; 0 before any."""
    count = len(crossings_ms)
    return float(crossings_ms[int(prudence * count)]) if count else 0.0
