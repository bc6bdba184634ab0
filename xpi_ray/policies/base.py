"""What the scheduler asks of a policy, be it a rule or learned.

Observation, SloClass ─► Policy.decide ─► Decision ─► Plan (the scheduler adds the version)
"""

from typing import NamedTuple, Protocol

from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass


class Decision(NamedTuple):
    """A plan that has no version yet."""

    partition: int
    """p, 0..N."""
    thresholds: tuple[float, ...]
    """τ_1..τ_N, 0..1."""
    level: int
    """Rung of the codec ladder."""


class Policy(Protocol):
    """Decides for one SLO class at a time."""

    def decide(self, observation: Observation, slo: SloClass) -> Decision:
        """Decide for requests of class ``slo`` under ``observation``."""
        ...
