"""What a request is told to do: where to split, when to leave, how hard to compress.

policy ─► PlanBook (a Plan for each SLO class) ─► router ─► Plan ─► edge, cloud
"""

import math

from pydantic import Field, field_validator, model_validator

from xpi_ray.config import Frozen
from xpi_ray.errors import PlanError


class SloClass(Frozen):
    """A band of deadlines that shares a plan."""

    name: str = Field(min_length=1)
    deadline_ms: float = Field(gt=0)
    """The shortest deadline of the band: a plan that meets it meets them all."""


SLO_CLASSES = (
    SloClass(name="tight", deadline_ms=20),
    SloClass(name="quick", deadline_ms=50),
    SloClass(name="standard", deadline_ms=100),
    SloClass(name="easy", deadline_ms=180),
    SloClass(name="loose", deadline_ms=300),
    SloClass(name="relaxed", deadline_ms=1_000),
)
"""What a server goes by if it is not told otherwise; narrow bands, as a plan serves all its own."""


class Plan(Frozen):
    """One decision, immutable."""

    version: int = Field(ge=0)
    """Rises by one with every decision; 0 is the bundle's own static plan."""
    partition: int = Field(ge=0)
    """p, 0..N: blocks 1..p run at the edge, p+1..N in the cloud."""
    thresholds: tuple[float, ...] = Field(min_length=1)
    """τ_1..τ_N, 0..1: leave at exit i when its normalised entropy is at most τ_i."""
    level: int = Field(ge=0)
    """Rung of the codec ladder, 0 the most exact; beyond the last one the image itself is sent."""

    @field_validator("thresholds")
    @classmethod
    def _thresholds_are_shares(cls, thresholds: tuple[float, ...]) -> tuple[float, ...]:
        for number, value in enumerate(thresholds, start=1):
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(f"threshold {number} must lie in 0..1, got {value}")
        return thresholds

    def check(self, num_blocks: int, num_levels: int) -> None:
        """Refuse a plan that does not fit a network of ``num_blocks`` and a ladder.

        Raises:
            PlanError: The plan names a block, an exit or a level that is not there.
        """
        if self.partition > num_blocks:
            raise PlanError(f"partition {self.partition} is beyond the last block, {num_blocks}")
        if len(self.thresholds) != num_blocks:
            raise PlanError(
                f"expected {num_blocks} thresholds, one for every exit, got {len(self.thresholds)}"
            )
        if self.level >= num_levels:
            raise PlanError(f"level {self.level} is not on the ladder 0..{num_levels - 1}")


class PlanBook(Frozen):
    """The plans of all SLO classes, decided together and therefore of one version."""

    plans: dict[str, Plan] = Field(min_length=1)
    """By the name of the SLO class."""
    lifetime_s: float = Field(gt=0)
    """Age at which a router goes back to the static plan."""

    @model_validator(mode="after")
    def _one_version(self) -> "PlanBook":
        versions = {plan.version for plan in self.plans.values()}
        if len(versions) > 1:
            raise ValueError(f"all plans of a book must be of one version, got {sorted(versions)}")
        return self

    @property
    def version(self) -> int:
        """The version that all its plans share."""
        return next(iter(self.plans.values())).version
