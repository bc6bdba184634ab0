"""The edge's part of a request: blocks one by one, leaving as soon as an exit is sure.

pixels ─► block 1 ─► exit 1 sure? ─► budget? ─► block 2 ─► … ─► block p ─► frame
                       └── answer ◄────┘
"""

import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xpi_ray.compression.codec import LADDER
from xpi_ray.exits.confidence import normalised_entropy
from xpi_ray.exits.rule import is_sure
from xpi_ray.inference.answer import ExitAnswer, Tier
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.pace import Pace
from xpi_ray.link.frame import Frame, pack
from xpi_ray.networks.progressive import ProgressiveNetwork, State
from xpi_ray.policies.plan import Plan

Pixels = NDArray[np.uint8]
"""One image of the network's size, (3, H, W)."""


class EdgeReply(NamedTuple):
    """What the edge made of a request."""

    exits: tuple[ExitAnswer, ...]
    """Every exit that ran, in order; empty when the budget did not allow even the first."""
    frame: bytes
    """What the cloud needs to go on; empty when nothing is to be sent."""
    complete: bool
    """Whether an exit was sure or the last block ran."""
    edge_ms: float
    encode_ms: float


class EdgeSide:
    """Runs blocks 1..p.

    Args:
        network: Prepared for serving.
        digest: The bundle's identity, which the frame carries.
        pace: What each block is expected to take here.
    """

    def __init__(self, network: ProgressiveNetwork, digest: bytes, pace: Pace) -> None:
        self._network = network
        self._digest = digest
        self._pace = pace

    def run(self, pixels: Pixels, plan: Plan, budget: Budget) -> EdgeReply:
        """Run as far as the plan, the exits' confidence and the budget say."""
        started = time.perf_counter()
        exits: list[ExitAnswer] = []
        sure = False
        with torch.inference_mode():
            state = self._network.start(torch.from_numpy(pixels).unsqueeze(0))
            for block in range(1, plan.partition + 1):
                if sure or not budget.allows(self._pace.expected_ms(block)):
                    break
                state = self._advance(state, block)
                answer = exit_answer(state, block, Tier.EDGE)
                exits.append(answer)
                sure = is_sure(answer.entropy, plan.thresholds[block - 1])
        ran_ms = (time.perf_counter() - started) * 1000
        complete = sure or len(exits) == self._network.num_blocks
        frame = b""
        if not complete and len(exits) == plan.partition:
            frame = self._encode(state, plan)
        encode_ms = (time.perf_counter() - started) * 1000 - ran_ms
        return EdgeReply(tuple(exits), frame, complete, ran_ms, encode_ms)

    def _advance(self, state: State, block: int) -> State:
        started = time.perf_counter()
        state = self._network.advance(state, block)
        self._pace.observe(block, (time.perf_counter() - started) * 1000)
        return state

    def _encode(self, state: State, plan: Plan) -> bytes:
        carry = state.carry[0].numpy()
        payload = LADDER[plan.level].encode(carry)
        logits = state.logits[0].numpy()
        shape = (carry.shape[0], carry.shape[1], carry.shape[2])
        return pack(Frame(self._digest, plan.partition, plan.level, shape, logits, payload))


def exit_answer(state: State, block: int, tier: Tier, row: int = 0) -> ExitAnswer:
    """Read exit ``block`` of sample ``row`` from the state that the block returned."""
    logits = state.logits[row].numpy()
    return ExitAnswer(block, tier, logits, float(normalised_entropy(logits)))
