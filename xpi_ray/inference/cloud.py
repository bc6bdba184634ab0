"""The cloud's part of a request: resume at block p+1, together with others that wait there.

    frame ─► admit ─► Job ─┐                      ┌─► exit sure, last block, or out of time: done
    frame ─► admit ─► Job ─┴─► pick ─► advance ───┴─► waits for its next block

Jobs at the same block run as one batch; one that is done leaves it, so its compute really stops.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xpi_ray.compression.carry_codec import CarryCodec
from xpi_ray.compression.image import decode_image
from xpi_ray.errors import CodecError, FrameError, RequestError
from xpi_ray.exits.confidence import exit_entropy
from xpi_ray.exits.rule import is_sure
from xpi_ray.inference.answer import ExitAnswer, Tier
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.edge import exit_answer
from xpi_ray.inference.pace import Pace
from xpi_ray.link.frame import Frame, unpack
from xpi_ray.networks.progressive import ProgressiveNetwork, State, joined


class CloudReply(NamedTuple):
    """What the cloud made of a frame."""

    exits: tuple[ExitAnswer, ...]
    """Every exit that ran here, in order; empty when the budget did not allow any."""
    blocks: int
    """How many ran here, those without an exit too."""
    complete: bool
    """Whether an exit was sure or the last block ran."""
    edge_is_surer: bool
    """Whether the exit before the link is to answer all the same."""
    cloud_wait_ms: float
    decode_ms: float
    cloud_ms: float


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way through the later blocks."""

    state: State
    """Of one sample."""
    block: int
    """The block that is to run next, 1..N."""
    thresholds: Sequence[float]
    budget: Budget
    decode_ms: float
    edge_entropy: float
    """Of the exit before the link, above 1 where that is not to be compared."""
    exits: list[ExitAnswer] = field(default_factory=list)
    blocks: int = 0
    complete: bool = False
    done: bool = False
    cloud_ms: float = 0.0

    def reply(self) -> CloudReply:
        """The answer of a job that is done."""
        wait_ms = self.budget.spent_ms - self.decode_ms - self.cloud_ms
        surer = bool(self.exits) and self.edge_entropy < self.exits[-1].entropy
        return CloudReply(
            tuple(self.exits),
            self.blocks,
            self.complete,
            surer,
            max(wait_ms, 0.0),
            self.decode_ms,
            self.cloud_ms,
        )


class CloudSide:
    """Runs blocks p+1..N for all that wait.

    Args:
        network: Prepared for serving.
        ladder: Decodes its carries.
        digest: The bundle's identity; a frame of another bundle is refused.
        pace: What each block is expected to take here, for one image.
        edge_trusted: By level that arrives and partition, (L, N): whether the exit before the link
            is to answer where it is surer than the last one here, see ``Outcomes.edge_trusted``.
        max_batch: Most jobs that run as one batch.
    """

    def __init__(
        self,
        network: ProgressiveNetwork,
        ladder: CarryCodec,
        digest: bytes,
        pace: Pace,
        edge_trusted: NDArray[np.bool_],
        max_batch: int = 8,
    ) -> None:
        self._network = network
        self._ladder = ladder
        self._digest = digest
        self._pace = pace
        self._edge_trusted = edge_trusted
        self._max_batch = max_batch
        self._jobs: list[Job] = []

    @property
    def waiting(self) -> int:
        """Jobs that are not done."""
        return len(self._jobs)

    def admit(self, data: bytes, thresholds: Sequence[float], budget: Budget) -> Job:
        """Decode a frame and line its request up.

        Raises:
            FrameError: The bytes are not a frame, or not one for this bundle.
            CodecError: The segments do not decode to what the network needs there.
        """
        started = time.perf_counter()
        frame = unpack(data)
        state = self._decode(frame)
        decode_ms = (time.perf_counter() - started) * 1000
        edge_entropy = self._edge_entropy(frame)
        job = Job(state, frame.partition + 1, thresholds, budget, decode_ms, edge_entropy)
        self._jobs.append(job)
        return job

    def pick(self) -> list[Job]:
        """The jobs to run next: all at the block where the most pressing one waits."""
        left_ms = [job.budget.left_ms for job in self._jobs]
        chosen = pressing(left_ms, [job.block for job in self._jobs], self._max_batch)
        return [self._jobs[job] for job in chosen]

    def advance(self, batch: list[Job]) -> None:
        """Run one block for jobs that wait at the same one; marks those that are done."""
        block = batch[0].block
        expected_ms = self._pace.expected_ms(block)
        for job in batch:
            job.done = not job.budget.allows(expected_ms)
        running = [job for job in batch if not job.done]
        if not running:
            return
        started = time.perf_counter()
        with torch.inference_mode():
            state = self._network.advance(joined([job.state for job in running]), block)
            answers = [exit_answer(state, block, Tier.CLOUD, row) for row in range(len(running))]
        taken_ms = (time.perf_counter() - started) * 1000
        if len(running) == 1:
            self._pace.observe(block, taken_ms)
        if not self._network.fuses:  # nor do frames bring any, and all must join in one batch
            state = state._replace(logits=state.logits[:, :0])
        for row, (job, answer) in enumerate(zip(running, answers, strict=True)):
            job.cloud_ms += taken_ms
            job.state = State(state.carry[row : row + 1], state.logits[row : row + 1])
            job.block = block + 1
            job.blocks += 1
            job.complete = block == self._network.num_blocks
            if answer is not None:
                job.exits.append(answer)
                job.complete |= is_sure(answer.entropy, job.thresholds[block - 1])
            job.done = job.complete

    def settle(self, batch: list[Job]) -> list[Job]:
        """Take out and return those of ``batch`` that are done."""
        done = [job for job in batch if job.done]
        self._jobs = [job for job in self._jobs if not job.done]
        return done

    def drop(self, job: Job) -> None:
        """Forget a job whose caller is gone, so that nothing more is computed for it."""
        job.done = True
        self._jobs = [other for other in self._jobs if other is not job]

    def _edge_entropy(self, frame: Frame) -> float:
        """Of the exit before the link, if it is to be compared with those here; else infinite."""
        if frame.partition == 0 or not self._network.fuses:
            return math.inf
        level = self._ladder.arrived_level(frame.segments, frame.partition, frame.level)
        if not self._edge_trusted[level, frame.partition]:
            return math.inf
        return exit_entropy(frame.logits)

    def _decode(self, frame: Frame) -> State:
        if frame.bundle_digest != self._digest:
            raise FrameError(
                f"the frame is of bundle {frame.bundle_digest.hex()}, this cloud serves "
                f"{self._digest.hex()}; deploy the same bundle on both"
            )
        if frame.partition >= self._network.num_blocks:
            raise FrameError(
                f"partition {frame.partition} leaves no block to run; the network has "
                f"{self._network.num_blocks}"
            )
        classes = self._network.num_classes if frame.partition and self._network.fuses else 0
        if len(frame.logits) != classes:
            raise FrameError(
                f"after block {frame.partition} expected {classes} logits, got {len(frame.logits)}"
            )
        if frame.level >= self._ladder.levels:
            raise FrameError(
                f"level {frame.level} is not on the ladder 0..{self._ladder.levels - 1}"
            )
        if frame.partition == 0:
            try:
                pixels = decode_image(frame.segments[0], self._network.image_size)
            except RequestError as err:
                raise CodecError(f"at partition 0: {err}") from err
            return self._network.start(torch.from_numpy(pixels).unsqueeze(0))
        carry = torch.from_numpy(self._ladder.decode(frame.segments, frame.partition, frame.level))
        logits = torch.from_numpy(frame.logits)
        channels_last = carry.unsqueeze(0).contiguous(memory_format=torch.channels_last)
        return State(channels_last, logits.unsqueeze(0))


def pressing(
    left_ms: Sequence[float] | NDArray[np.float64],
    blocks: Sequence[int] | NDArray[np.int64],
    max_batch: int,
) -> list[int]:
    """The jobs that run next: those at the block where the one with the least time left waits.

    Args:
        left_ms: Of each job, in order of arrival; at least one.
        blocks: That each waits for.
        max_batch: Most that run together.

    Returns:
        Their indices, in order of arrival.
    """
    first = 0
    for job in range(1, len(left_ms)):
        if left_ms[job] < left_ms[first]:
            first = job
    chosen = [job for job in range(len(blocks)) if blocks[job] == blocks[first]]
    return chosen[:max_batch]
