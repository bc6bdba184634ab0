"""The edge's part of a request: blocks one by one, leaving as soon as an exit is sure.

pixels ─► block 1 ─► exit 1 sure? ─► budget? ─► block 2 ─► … ─► block p ─► budget? ─► frame
                       └── answer ◄────┘                          └─► Rest: block p+1 ─► …

A block without an exit is only run. The frame is a step like a block: on a weak edge to encode it
takes longer than some of them, and where there is no time for it, the exits in hand answer.
``Rest`` is for sites whose edge goes on while the frame is in flight.
"""

import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xpi_ray.compression.carry_codec import CarryCodec
from xpi_ray.compression.image import encode_image
from xpi_ray.exits.confidence import exit_entropy
from xpi_ray.exits.rule import is_sure
from xpi_ray.inference.answer import ExitAnswer, Tier
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.pace import ENCODING, Pace
from xpi_ray.link.frame import Frame, pack
from xpi_ray.networks.progressive import ProgressiveNetwork, State
from xpi_ray.policies.plan import Plan

Pixels = NDArray[np.uint8]
"""One image of the network's size, (3, H, W)."""
NO_LOGITS = np.empty(0, np.float32)


class Way(NamedTuple):
    """How a request may go beside its plan."""

    crosses: bool = True
    """Whether it may cross the link; if not, later blocks run at the edge while nobody waits."""
    goes_on: bool = False
    """Whether later blocks run at the edge while it crosses, and nobody waits."""


PLANNED = Way()
"""No other way."""


class EdgeReply(NamedTuple):
    """What the edge made of a request."""

    exits: tuple[ExitAnswer, ...]
    """Every exit that ran, in order; empty when the budget allowed none, or none is there."""
    blocks: int
    """How many ran, 0..N."""
    frame: bytes
    """What the cloud needs to go on; empty when nothing is to be sent."""
    complete: bool
    """Whether an exit was sure or the last block ran."""
    edge_ms: float
    encode_ms: float
    overrun_ms: float
    """By how much the last step took longer than was expected at the last look at the budget; 0
    where it would not have been waited for."""
    wait_ms: float = 0.0
    """In the edge's queue, and for a block that was not done in time."""
    sends_image: bool = False
    """Whether the cloud is to go on with the image itself, in place of a frame."""
    rest: "Rest | None" = None
    """Where the edge goes on; it does not leave its process."""

    @property
    def crosses(self) -> bool:
        """Whether the cloud is to go on."""
        return bool(self.frame) or self.sends_image


class Rest(NamedTuple):
    """The blocks behind the partition, which the edge may run while a frame is in flight."""

    go_on: Callable[[], Coroutine[Any, Any, None]]
    """Runs them as far as confidence and budget say; to be cancelled when they are not needed."""
    reply: Callable[[], EdgeReply]
    """All that is known to have run so far, from block 1 on."""


NOTHING_RAN = EdgeReply((), 0, b"", False, 0.0, 0.0, 0.0)
"""Of an edge that could do nothing for a request, or did not begin yet."""


class EdgeSide:
    """Runs blocks 1..p.

    Args:
        network: Prepared for serving.
        ladder: Encodes its carries.
        digest: The bundle's identity, which the frame carries.
        pace: What each block, and the frame's encoding, is expected to take here.
    """

    def __init__(
        self, network: ProgressiveNetwork, ladder: CarryCodec, digest: bytes, pace: Pace
    ) -> None:
        self._network = network
        self._ladder = ladder
        self._digest = digest
        self._pace = pace

    def start(self, pixels: Pixels, plan: Plan, budget: Budget) -> "EdgeRun":
        """Begin a request; its blocks run when it is stepped."""
        return EdgeRun(self._network, self._ladder, self._digest, self._pace, pixels, plan, budget)

    def run(self, pixels: Pixels, plan: Plan, budget: Budget) -> EdgeReply:
        """Run a request as far as the plan, the exits' confidence and the budget say."""
        return self.start(pixels, plan, budget).finish()


class EdgeRun:
    """One request on its way through blocks 1..p, a block a step, and the frame as the last one.

    Steps are short, so an event loop that runs them stays in time for its other work.
    """

    def __init__(
        self,
        network: ProgressiveNetwork,
        ladder: CarryCodec,
        digest: bytes,
        pace: Pace,
        pixels: Pixels,
        plan: Plan,
        budget: Budget,
    ) -> None:
        self._network = network
        self._ladder = ladder
        self._digest = digest
        self._pace = pace
        self._plan = plan
        self._budget = budget
        self._state = network.start(torch.from_numpy(pixels).unsqueeze(0))
        self._last_block = plan.partition
        self._may_go_on: Callable[[], bool] | None = None
        self._blocks = 0
        self._exits: list[ExitAnswer] = []
        self._sure = False
        self._stopped = False
        self._frame = b""
        self._image = plan.level >= ladder.levels
        self._edge_ms = 0.0
        self._encode_ms = 0.0
        self._overrun_ms = 0.0

    @property
    def expected_ms(self) -> float:
        """What the next step is expected to take; 0 if there is none."""
        return self._expected_ms(self._next)

    def _expected_ms(self, step: int | None) -> float:
        return 0.0 if step is None else self._pace.expected_ms(step)

    @property
    def _next(self) -> int | None:
        """The next step: a block, ``ENCODING``, or None."""
        if self._sure or self._stopped:
            return None
        if self._blocks < self._last_block:
            beyond = self._blocks >= max(self._plan.partition, 1)  # one exit is for all
            waits = beyond and self._may_go_on is not None and not self._may_go_on()
            return None if waits else self._blocks + 1
        encodes = self._crosses and not self._frame and not self._image
        return ENCODING if encodes else None

    @property
    def _crosses(self) -> bool:
        """Whether the edge is through and leaves something to the cloud."""
        ended = self._sure or self._stopped or self._blocks != self._last_block
        return not ended and 0 < self._blocks < self._network.num_blocks

    def stop(self) -> None:
        """Take no further step; from any thread."""
        self._stopped = True

    def step(self) -> bool:
        """Take the next step if there is one and the budget allows it; whether it did."""
        step = self._next
        expected_ms = self._expected_ms(step)
        if step is None or not self._budget.allows(expected_ms):
            return False
        started = time.perf_counter()
        if step == ENCODING:
            frame = self._encode()
            taken_ms = self._encode_ms = (time.perf_counter() - started) * 1000
            self._frame = frame  # last, as another thread may look how far it is
        else:
            with torch.inference_mode():
                self._state = self._network.advance(self._state, step)
                answer = exit_answer(self._state, step, Tier.EDGE)
            taken_ms = (time.perf_counter() - started) * 1000
            self._edge_ms += taken_ms
            if answer is not None:
                self._exits.append(answer)
                self._sure = is_sure(answer.entropy, self._plan.thresholds[step - 1])
            self._blocks = step  # last, likewise
        self._pace.observe(step, taken_ms)
        self._overrun_ms = taken_ms - expected_ms
        return True

    def finish(self) -> EdgeReply:
        """Take all steps that are left, and reply.

        Another thread may ask for a reply meanwhile; it gets what ran so far.
        """
        while self.step():
            pass
        return self.reply()

    def go_on(self, may: Callable[[], bool] | None = None) -> None:
        """Let further steps run the blocks behind the partition too.

        Args:
            may: Whether there is to be one more, asked before each; None: always.
        """
        self._last_block, self._may_go_on = self._network.num_blocks, may
        self._frame = b""  # it is on its way

    def reply(self) -> EdgeReply:
        """What came of it so far, with a frame once there is one."""
        return EdgeReply(
            exits=tuple(self._exits),
            blocks=self._blocks,
            frame=self._frame,
            complete=self._sure or self._blocks == self._network.num_blocks,
            edge_ms=self._edge_ms,
            encode_ms=self._encode_ms,
            overrun_ms=self._overrun_ms,
            sends_image=self._image and self._crosses,
        )

    def _encode(self) -> bytes:
        plan, carry = self._plan, self._state.carry[0].numpy()
        segments = self._ladder.encode(carry, plan.partition, plan.level)
        logits = self._state.logits[0].numpy() if self._network.fuses else NO_LOGITS
        return pack(Frame(self._digest, plan.partition, plan.level, logits, tuple(segments)))


def image_frame(pixels: Pixels, digest: bytes, file: bytes = b"") -> bytes:
    """The frame of partition 0: the image itself, and no exit.

    Args:
        pixels: What the network reads.
        digest: The bundle's identity.
        file: The client's own file that these pixels were made of, sent if that is smaller.
    """
    own = encode_image(pixels)
    smallest = file if 0 < len(file) < len(own) else own
    return pack(Frame(digest, 0, 0, NO_LOGITS, (smallest,)))


def exit_answer(state: State, block: int, tier: Tier, row: int = 0) -> ExitAnswer | None:
    """Read exit ``block`` of sample ``row`` from what the block returned; None if it has none."""
    logits = state.logits.numpy()[row]
    return ExitAnswer(block, tier, logits, exit_entropy(logits)) if len(logits) else None
