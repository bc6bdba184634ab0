"""What a policy sees: load, link and machines, told by the requests of the last period.

RequestRecord… ─► seen ─┐
simulated requests ─────┴─► Watch ─► Observation ─► policy
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xpi_ray.config import Frozen
from xpi_ray.profiles.table import Profile
from xpi_ray.telemetry.records import RequestRecord

DRIFT = 0.05  # share by which an unseen quantity goes back to its prior, each period

SEEN = np.dtype(
    [
        (name, np.float64)
        for name in (
            "deadline_ms",
            "exit",
            "entropy",
            "edge_blocks",
            "cloud_blocks",
            "cloud_from",
            "edge_wait_ms",
            "edge_ms",
            "encode_ms",
            "cloud_wait_ms",
            "decode_ms",
            "cloud_ms",
            "link_bps",
            "link_spread",
            "round_trip_ms",
            "budget_left_ms",
        )
    ]
)
"""What is looked at of each request; the fields are those of ``RequestRecord``."""

Seen = NDArray[np.void]
"""(n,) of ``SEEN``."""


class Observation(Frozen):
    """The state of load, link and machines over one period."""

    edge_slowdown: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Block times at the edge now, relative to the profile."""
    cloud_slowdown: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Likewise in the cloud."""
    edge_wait_ms: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """Hop and queue before the edge begins."""
    cloud_wait_ms: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Queue before the cloud begins, and waiting within its batches."""
    encode_ms: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Carry to frame."""
    decode_ms: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Frame to carry."""
    round_trip_ms: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Of a cloud call, apart from the time that the frame's size takes."""
    link_bps: float = Field(default=100e6, gt=0, allow_inf_nan=False)
    """What the link carries from edge to cloud."""
    link_spread: float = Field(default=1.5, ge=0, allow_inf_nan=False)
    """How uncertain that is: standard deviation of its natural logarithm."""
    arrivals_rps: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Requests answered per second."""
    edge_utilisation: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Seconds of work at the edge per second."""
    cloud_utilisation: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Seconds of work in the cloud per second, for this site."""
    mean_deadline_ms: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    """Geometric mean of the deadlines."""
    missed: float = Field(default=0.0, ge=0, le=1)
    """Share of requests without an answer in time."""
    latency_ms: float = Field(default=100.0, ge=0, allow_inf_nan=False)
    """Mean time that requests took, also those that ended without an answer."""
    mean_exit: float = Field(default=0.5, ge=0, le=1)
    """Of those that were answered: mean of their exit, divided by N."""
    surety: float = Field(default=0.8, ge=0, le=1)
    """Likewise, one less the exit's entropy: what is known of accuracy without labels."""


class Watch:
    """Turns each period's requests into an observation.

    What no request tells of (a link that none crossed) drifts back to the prior, so that a
    policy that once left it gives it another try.

    Args:
        profile: Of the machine that the slow-downs are relative to.
        prior: What to assume before anything was seen.
    """

    def __init__(self, profile: Profile, prior: Observation) -> None:
        self._blocks_ms = np.concatenate([[0.0], np.cumsum(profile.block_ms)])
        self._prior = prior.model_dump()
        self._latest = prior.model_dump()

    def observe(self, seen: Seen, period_s: float) -> Observation:
        """Take in the requests that ended in the last ``period_s`` seconds, in their order."""
        latest = self._latest
        slower = latest["edge_slowdown"] / self._prior["edge_slowdown"]
        for name, value in self._prior.items():
            # An edge that does not encode is taken to become as slow at that as at its blocks.
            likely = value * slower if name == "encode_ms" else value
            latest[name] += DRIFT * (likely - latest[name])
        latest["arrivals_rps"] = len(seen) / period_s
        if len(seen):
            self._load(seen, period_s)
        edge = seen[seen["edge_blocks"] > 0]
        if len(edge):
            profiled_ms = self._blocks_ms[edge["edge_blocks"].astype(np.intp)].sum()
            latest["edge_slowdown"] = edge["edge_ms"].sum() / profiled_ms
            latest["edge_wait_ms"] = np.median(edge["edge_wait_ms"])
        crossed = seen[seen["cloud_blocks"] > 0]
        if len(crossed):
            first = crossed["cloud_from"].astype(np.intp)
            last = first + crossed["cloud_blocks"].astype(np.intp)
            profiled_ms = (self._blocks_ms[last] - self._blocks_ms[first]).sum()
            latest["cloud_slowdown"] = crossed["cloud_ms"].sum() / profiled_ms
            latest["cloud_wait_ms"] = np.median(crossed["cloud_wait_ms"])
            latest["decode_ms"] = np.median(crossed["decode_ms"])
        encoded = seen[seen["encode_ms"] > 0]
        if len(encoded):
            latest["encode_ms"] = np.median(encoded["encode_ms"])
        told = seen[seen["link_bps"] > 0]
        if len(told):
            for name in ("link_bps", "link_spread", "round_trip_ms"):
                latest[name] = told[name][-1]
        return Observation(**latest)

    def _load(self, seen: Seen, period_s: float) -> None:
        """What every request tells of."""
        latest, per_s = self._latest, 1 / (1000 * period_s)
        latest["edge_utilisation"] = (seen["edge_ms"] + seen["encode_ms"]).sum() * per_s
        latest["cloud_utilisation"] = (seen["cloud_ms"] + seen["decode_ms"]).sum() * per_s
        latest["mean_deadline_ms"] = np.exp(np.log(seen["deadline_ms"]).mean())
        taken_ms = seen["deadline_ms"] - seen["budget_left_ms"]
        latest["latency_ms"] = max(float(taken_ms.mean()), 0.0)
        in_time = (seen["exit"] > 0) & (seen["budget_left_ms"] >= 0)
        latest["missed"] = 1 - in_time.mean()
        answered = seen[seen["exit"] > 0]
        if len(answered):
            latest["mean_exit"] = answered["exit"].mean() / (len(self._blocks_ms) - 1)
            latest["surety"] = np.clip(1 - answered["entropy"].mean(), 0.0, 1.0)


def seen(records: Sequence[RequestRecord]) -> Seen:
    """What a watch looks at, of records."""
    names = SEEN.names or ()
    rows = [tuple(float(getattr(record, name)) for name in names) for record in records]
    return np.array(rows, SEEN)
