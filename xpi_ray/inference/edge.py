"""The edge's part of a request: blocks one by one, leaving as soon as an exit is sure.

pixels ─► block 1 ─► exit 1 sure? ─► budget? ─► block 2 ─► … ─► block p ─► frame
                       └── answer ◄────┘                          └─► Rest: block p+1 ─► …

A block without an exit is only run. ``Rest`` is for sites whose edge goes on while the frame is in
flight.
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
from xpi_ray.inference.pace import Pace
from xpi_ray.link.frame import Frame, pack
from xpi_ray.networks.progressive import ProgressiveNetwork, State
from xpi_ray.policies.plan import Plan

Pixels = NDArray[np.uint8]
"""One image of the network's size, (3, H, W)."""
NO_LOGITS = np.empty(0, np.float32)


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
    """What came after the last look at the budget and was not expected then: of the last block,
    and to encode the frame."""
    wait_ms: float = 0.0
    """In the edge's queue, and for a block that was not done in time."""
    rest: "Rest | None" = None
    """Where the edge goes on; known within one process only."""


class Rest(NamedTuple):
    """The blocks behind the partition, which the edge may run while a frame is in flight."""

    go_on: Callable[[], Coroutine[Any, Any, None]]
    """Runs them as far as confidence and budget say; to be cancelled when they are not needed."""
    reply: Callable[[], EdgeReply]
    """All that ran so far, from block 1 on."""


class EdgeSide:
    """Runs blocks 1..p.

    Args:
        network: Prepared for serving.
        ladder: Encodes its carries.
        digest: The bundle's identity, which the frame carries.
        pace: What each block is expected to take here.
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
    """One request on its way through blocks 1..p, a block a step.

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
        self._blocks = 0
        self._exits: list[ExitAnswer] = []
        self._sure = False
        self._stopped = False
        self._edge_ms = 0.0
        self._overrun_ms = 0.0

    @property
    def expected_ms(self) -> float:
        """What the next block is expected to take; 0 if there is none to run."""
        return 0.0 if self._is_over else self._pace.expected_ms(self._blocks + 1)

    @property
    def _is_over(self) -> bool:
        return self._sure or self._stopped or self._blocks == self._last_block

    def stop(self) -> None:
        """Run no further block; from any thread."""
        self._stopped = True

    def step(self) -> bool:
        """Run the next block if there is one to run; whether it did."""
        block, expected_ms = self._blocks + 1, self.expected_ms
        if self._is_over or not self._budget.allows(expected_ms):
            return False
        started = time.perf_counter()
        with torch.inference_mode():
            self._state = self._network.advance(self._state, block)
            answer = exit_answer(self._state, block, Tier.EDGE)
        taken_ms = (time.perf_counter() - started) * 1000
        self._pace.observe(block, taken_ms)
        self._edge_ms += taken_ms
        self._overrun_ms = taken_ms - expected_ms
        if answer is not None:
            self._exits.append(answer)
            self._sure = is_sure(answer.entropy, self._plan.thresholds[block - 1])
        self._blocks = block  # last, as another thread may look how far it is
        return True

    def finish(self) -> EdgeReply:
        """Take all steps that are left, and reply.

        Another thread may ask for a reply meanwhile; it gets what ran so far.
        """
        while self.step():
            pass
        return self.reply()

    def go_on(self) -> None:
        """Let further steps run the blocks behind the partition too."""
        self._last_block = self._network.num_blocks

    def reply(self, sends: bool = True) -> EdgeReply:
        """What came of it, with a frame where the cloud is to go on and the edge ``sends``."""
        complete = self._sure or self._blocks == self._network.num_blocks
        started = time.perf_counter()
        frame = b""
        if sends and not complete and self._blocks == self._last_block:
            frame = self._encode()
        encode_ms = (time.perf_counter() - started) * 1000
        overrun_ms = self._overrun_ms + encode_ms
        exits = tuple(self._exits)
        return EdgeReply(exits, self._blocks, frame, complete, self._edge_ms, encode_ms, overrun_ms)

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
