"""A request that may be stopped at any time: blocks one by one, and the exits that are planned.

    pixels ─► block ─► exit planned? ─► exit ─► Guide plans anew ─► block ─► …  until it is stopped

Who holds the run has the best answer so far at any moment.
"""

import time
from typing import NamedTuple

import torch

from xpi_ray.elastic.facts import ElasticFacts
from xpi_ray.elastic.guide import Guide
from xpi_ray.elastic.stop_times import StopTimes
from xpi_ray.inference.answer import ExitAnswer, Tier
from xpi_ray.inference.edge import Pixels, exit_answer
from xpi_ray.inference.pace import Pace
from xpi_ray.networks.progressive import ProgressiveNetwork


class ElasticExit(NamedTuple):
    """An exit that ran."""

    answer: ExitAnswer
    confidence: float
    """The chance that it is right, 0..1, calibrated."""
    elapsed_ms: float
    """Since the request began."""


class ElasticEnd(NamedTuple):
    """How a request ended."""

    is_complete: bool
    """Whether nothing ahead was worth its time; else it was stopped before."""
    blocks: int
    """How many ran, 0..N."""
    elapsed_ms: float
    """Since the request began."""


class ElasticRun:
    """One request at the edge, a block a step.

    Args:
        network: Prepared for serving.
        facts: Of the network.
        pace: What each block with its exit is expected to take here.
        pixels: The image.
        stops: When the request may be stopped, since it began; None if nobody knows: any time that
            all blocks take is as likely as any other then.
        spent_ms: How long ago that was.
    """

    def __init__(
        self,
        network: ProgressiveNetwork,
        facts: ElasticFacts,
        pace: Pace,
        pixels: Pixels,
        stops: StopTimes | None,
        spent_ms: float = 0.0,
    ) -> None:
        self._network, self._facts, self._pace = network, facts, pace
        blocks = range(1, network.num_blocks + 1)
        block_ms = [pace.expected_ms(block) for block in blocks]
        stops = stops or StopTimes.uniform(spent_ms + sum(block_ms))
        self._guide = Guide(facts.costs(block_ms), facts.predictor, stops)
        self._state = network.start(torch.from_numpy(pixels).unsqueeze(0))
        self._began_s = time.perf_counter() - spent_ms / 1000
        self._next = self._guide.next_exit(spent_ms)
        self._stopped = False
        self.blocks = 0
        """How many ran."""
        self.exits: list[ElasticExit] = []
        """Every exit that ran, in order."""

    @property
    def elapsed_ms(self) -> float:
        """Since the request began."""
        return (time.perf_counter() - self._began_s) * 1000

    @property
    def expected_ms(self) -> float:
        """What the next block is expected to take; 0 if none is to run."""
        return self._pace.expected_ms(self.blocks + 1) if self._next and not self._stopped else 0.0

    @property
    def end(self) -> ElasticEnd:
        """How it ends, or would now."""
        return ElasticEnd(not self._next, self.blocks, self.elapsed_ms)

    def stop(self) -> None:
        """Run no further block; from any thread."""
        self._stopped = True

    def step(self) -> bool:
        """Run the next block, with its exit if that is planned; whether there was one to run."""
        if not self._next or self._stopped:
            return False
        block = self.blocks + 1
        with torch.inference_mode():
            if block < self._next:
                self._state = self._network.skip_exit(self._state, block)
            else:
                self._run_exit(block)
        self.blocks = block
        return True

    def _run_exit(self, block: int) -> None:
        started_s = time.perf_counter()
        self._state = self._network.advance(self._state, block)
        answer = exit_answer(self._state, block, Tier.EDGE)
        assert answer is not None  # only exits that are there are planned
        self._pace.observe(block, (time.perf_counter() - started_s) * 1000)
        confidence = self._facts.confidence(block, answer.logits)
        self._guide.saw(block, confidence)
        self.exits.append(ElasticExit(answer, confidence, self.elapsed_ms))
        self._next = self._guide.next_exit(self.elapsed_ms)
