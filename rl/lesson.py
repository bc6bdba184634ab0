"""What the scheduler and its trainer tell each other; neither needs to know RLlib for it.

scheduler ─ policy, Experience…, SiteLog… ─► trainer ─ Lesson ─► scheduler
"""

from collections.abc import Sequence
from typing import NamedTuple

from xpi_ray.policies.observation import Observation


class SiteLog(NamedTuple):
    """What a site was like of late."""

    observations: Sequence[Observation]
    """One a period, the oldest first."""
    deadlines_ms: Sequence[float]
    """Of its latest requests."""


class Lesson(NamedTuple):
    """What came of learning."""

    policy: bytes | None
    """File of a policy that is better in the simulator; None if none was found."""
    facts: dict[str, float | str]
    """For the journal: experiences, gain and its error, or why there is no gain."""
