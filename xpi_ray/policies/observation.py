"""What a policy sees: load, link and machines, told by the records of the last period.

RequestRecord… ─► Watch ─► Observation ─► policy
"""

import statistics
from collections.abc import Sequence

from pydantic import Field

from xpi_ray.config import Frozen
from xpi_ray.profiles.table import Profile
from xpi_ray.telemetry.records import RequestRecord

DRIFT = 0.05  # share by which an unseen quantity goes back to its prior, each period


class Observation(Frozen):
    """The state of load, link and machines over one period."""

    edge_slowdown: float = Field(default=1.0, gt=0)
    """Block times at the edge now, relative to the profile."""
    cloud_slowdown: float = Field(default=1.0, gt=0)
    """Likewise in the cloud."""
    edge_wait_ms: float = Field(default=2.0, ge=0)
    """Hop and queue before the edge begins."""
    cloud_wait_ms: float = Field(default=0.0, ge=0)
    """Queue before the cloud begins, and waiting within its batches."""
    round_trip_ms: float = Field(default=5.0, ge=0)
    """Of a cloud call, apart from the time that the frame's size takes."""
    link_bps: float = Field(default=100e6, gt=0)
    """What the link carries from edge to cloud."""
    arrivals_rps: float = Field(default=0.0, ge=0)
    """Requests answered per second."""


class Watch:
    """Turns each period's records into an observation.

    What no record tells of (a link that no request crossed) drifts back to the prior, so that a
    policy that once left it gives it another try.

    Args:
        profile: Of the machine that the slow-downs are relative to.
        prior: What to assume before anything was seen.
    """

    def __init__(self, profile: Profile, prior: Observation) -> None:
        self._block_ms = profile.block_ms
        self._prior = prior
        self._latest = prior

    def observe(self, records: Sequence[RequestRecord], period_s: float) -> Observation:
        """Take in the records of the last ``period_s`` seconds."""
        crossed = [record for record in records if record.cloud_blocks]
        edge = [record for record in records if record.edge_blocks]
        seen: dict[str, float] = {"arrivals_rps": len(records) / period_s}
        if edge:
            profiled_ms = sum(sum(self._block_ms[: r.edge_blocks]) for r in edge)
            seen["edge_slowdown"] = sum(r.edge_ms for r in edge) / profiled_ms
            seen["edge_wait_ms"] = statistics.median(r.edge_wait_ms for r in edge)
        if crossed:
            profiled_ms = sum(sum(self._cloud_blocks_ms(r)) for r in crossed)
            seen["cloud_slowdown"] = sum(r.cloud_ms for r in crossed) / profiled_ms
            seen["cloud_wait_ms"] = statistics.median(r.cloud_wait_ms for r in crossed)
        for record in records[::-1]:
            if record.link_bps:
                seen["round_trip_ms"], seen["link_bps"] = record.round_trip_ms, record.link_bps
                break
        drifted = {
            name: value + DRIFT * (getattr(self._prior, name) - value)
            for name, value in self._latest.model_dump().items()
        }
        self._latest = Observation(**{**drifted, **seen})
        return self._latest

    def _cloud_blocks_ms(self, record: RequestRecord) -> tuple[float, ...]:
        first = record.edge_blocks
        return self._block_ms[first : first + record.cloud_blocks]
