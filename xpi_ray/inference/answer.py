"""What a request comes to: every exit that ran, which one answers, and where the time went.

edge ─► exits 1..i ─┐
cloud ─► exits i+1.. ┴─► Answer ─► api (JSON, tensors), telemetry (records, spans)
"""

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.errors import DeadlineError, OverloadError, RequestError
from xpi_ray.telemetry.records import RequestRecord

Logits = NDArray[np.float32]

Answers = Literal["last", "surest"]
"""Which exit answers: the last one that ran, or of all that ran the one of least entropy, as in
SPINN (MobiCom'20), whose fallback is the most confident exit seen."""


class Tier(StrEnum):
    """Where a block ran."""

    EDGE = "edge"
    CLOUD = "cloud"


class Status(StrEnum):
    """How a request ended."""

    COMPLETE = "complete"
    """An exit was sure, or the last block ran."""
    BEST_EFFORT = "best_effort"
    """Time ran out or the cloud failed; this is the best exit in hand."""


class ExitAnswer(NamedTuple):
    """The answer of one exit."""

    exit: int
    """1..N."""
    tier: Tier
    logits: Logits
    """Fused logits, float32 (K,)."""
    entropy: float
    """Normalised, 0 (sure) to 1 (no idea)."""


@dataclass(slots=True)
class Stages:
    """Time spent per stage, milliseconds; stages that did not run stay 0."""

    decode_image_ms: float = 0.0
    """The image file to pixels of the network's size, in the router."""
    edge_wait_ms: float = 0.0
    """From the router's call until the edge began: hop and queue."""
    edge_ms: float = 0.0
    """Blocks at the edge."""
    encode_ms: float = 0.0
    """Carry to frame."""
    link_ms: float = 0.0
    """The cloud call less the cloud's own stages: frame there, answer back."""
    cloud_wait_ms: float = 0.0
    """In the cloud's queue, and waiting for others in a batch."""
    decode_ms: float = 0.0
    """Frame to carry."""
    cloud_ms: float = 0.0
    """Blocks in the cloud."""
    total_ms: float = 0.0
    """From the request's arrival at the router to its answer."""


STAGES = tuple(stage.name for stage in fields(Stages))


@dataclass(slots=True)
class Answer:
    """One image's answer, or why there is none."""

    exits: list[ExitAnswer]
    """Every exit that ran, in order. Not empty, unless there is an error."""
    status: Status
    partition: int
    """Where the plan split the network."""
    level: int
    plan_version: int
    frame_bytes: int = 0
    """Size of what crossed the link; 0 when nothing did."""
    deadline_ms: float = 0.0
    """The budget given."""
    budget_left_ms: float = 0.0
    stages: Stages = field(default_factory=Stages)
    edge_blocks: int = 0
    """Blocks that ran at the edge, those without an exit too."""
    cloud_blocks: int = 0
    """Likewise in the cloud."""
    cloud_from: int = 0
    """Blocks that the cloud left out, as a carry from behind them crossed; 0 for an image."""
    link_bps: float = 0.0
    """What the link is believed to carry since; 0 when nothing crossed."""
    link_spread: float = 0.0
    """Standard deviation of its natural logarithm."""
    round_trip_ms: float = 0.0
    """What a frame without size takes there and back."""
    edge_is_surer: bool = False
    """Whether the edge's last exit answers although the cloud's ran."""
    answers: Answers = "last"
    error: RequestError | None = None
    """Why none of these exits answers."""

    @property
    def best(self) -> ExitAnswer:
        """The exit that answers.

        The last one, or the edge's last one where that is surer; or of all the surest, and of
        equally sure ones the last.
        """
        if self.answers == "surest":
            return min(reversed(self.exits), key=lambda exit_: exit_.entropy)
        if self.edge_is_surer:
            return [exit_ for exit_ in self.exits if exit_.tier is Tier.EDGE][-1]
        return self.exits[-1]

    def record(self, request_id: str, model: str, slo_class: str) -> RequestRecord:
        """The facts of this answer that scheduler and benchmarks read."""
        told: dict[str, Any] = {
            "request_id": request_id,
            "model": model,
            "slo_class": slo_class,
            "deadline_ms": self.deadline_ms,
            "plan_version": self.plan_version,
            "partition": self.partition,
            "level": self.level,
            "frame_bytes": self.frame_bytes,
            "link_bps": self.link_bps,
            "link_spread": self.link_spread,
            "round_trip_ms": self.round_trip_ms,
            "budget_left_ms": self.budget_left_ms,
        }
        if self.error is not None:  # only time and link: a link must be known when it fails
            total_ms = self.stages.total_ms
            return RequestRecord(status=_failure(self.error), total_ms=total_ms, **told)
        return RequestRecord(
            status=self.status.value,
            exit=self.best.exit,
            tier=self.best.tier.value,
            entropy=self.best.entropy,
            edge_blocks=self.edge_blocks,
            cloud_blocks=self.cloud_blocks,
            cloud_from=self.cloud_from if self.cloud_blocks else 0,
            **told,
            **{name: getattr(self.stages, name) for name in STAGES},
        )


def _failure(error: RequestError) -> Literal["missed", "unavailable", "overloaded"]:
    """The status of a request that has no answer."""
    if isinstance(error, OverloadError):
        return "overloaded"
    return "missed" if isinstance(error, DeadlineError) else "unavailable"
