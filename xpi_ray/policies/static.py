"""The policy that never changes its mind: the bundle's safe plan, or the user's own.

Decision ─► Static.decide ─► the same Decision
"""

from xpi_ray.policies.base import Decision
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import Plan, PlanBook, SloClass


class Static:
    """Always decides the same."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def decide(self, observation: Observation, slo: SloClass) -> Decision:
        """Return the decision that was given, whatever is seen."""
        del observation, slo
        return self._decision


def plan_book(decisions: dict[str, Decision], version: int, lifetime_s: float) -> PlanBook:
    """Give decisions, by the name of their SLO class, a version and a lifetime."""
    plans = {
        name: Plan(version=version, **decision._asdict()) for name, decision in decisions.items()
    }
    return PlanBook(plans=plans, lifetime_s=lifetime_s)
