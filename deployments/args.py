"""What each application can be told, in YAML or by a program; unknown keys are errors.

One application per site (router and edge executor), one for the cloud, one for the scheduler.
"""

from typing import Literal

from pydantic import Field, field_validator

from xpi_ray.config import Frozen
from xpi_ray.inference.answer import Answers
from xpi_ray.policies.plan import SLO_CLASSES, SloClass

CLOUD_APP = "xpi-cloud"
SCHEDULER_APP = "xpi-scheduler"


def site_app_name(site: str) -> str:
    """The name of a site's application."""
    return f"xpi-{site}"


class SiteArgs(Frozen):
    """One site: its router and its edge executor."""

    site: str = Field(default="site-1", pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")
    """Value of the node label ``xpi-site`` where the site's replicas run."""
    bundle: str | None = None
    """Folder of a bundle, or the name of a packaged one; the default is CIFAR-10."""
    router_replicas: int = Field(default=1, ge=1)
    edge_replicas: int = Field(default=0, ge=0)
    """Replicas of the edge executor; 0 runs its part in the router's process and saves a hop."""
    edge_threads: int = Field(default=1, ge=1)
    """Threads that one image's blocks run on."""
    edge_slowdown: float = Field(default=1.0, ge=1)
    """Makes every edge block take this many times as long, to stand in for a weaker machine."""
    link_trace: str | None = None
    """File of a recorded link that frames to the cloud are held to, to stand in for a real one; it
    begins with the first frame."""
    link_round_trip_ms: float = Field(default=0.0, ge=0)
    """Added to calls of the cloud, with ``link_trace``."""
    default_deadline_ms: float = Field(default=1_000, gt=0)
    """For requests that give none."""
    maximum_deadline_ms: float = Field(default=60_000, gt=0)
    """Longer ones are cut to it."""
    slo_classes: tuple[SloClass, ...] = Field(default=SLO_CLASSES, min_length=1)
    partition: int | None = Field(default=None, ge=0)
    """Fixes the static plan's partition; the scheduler must be off, or it decides anew."""
    early_exit: bool = True
    """Off: the static plan's thresholds are 0, and every block runs."""
    best_effort: bool = True
    """Off: where no exit is sure and the last one does not run in time, the request gets a 504, or
    a 503 if the cloud is gone, instead of the best exit in hand."""
    answers: Answers = "last"
    """Which exit answers of those that ran: the last one, or the one of least entropy
    (``surest``)."""
    reroutes: bool = True
    """The router goes another way than the plan's where that would be late: a request whose turn at
    the edge would come too late is sent to the cloud whole, as an image, if the link likely carries
    it. Where a reply from the cloud is in doubt, as the last one did not come or an image is likely
    late, the edge goes on meanwhile, and while one such request waits, the others stay at the
    edge."""
    goes_on: bool = False
    """The edge goes on with the blocks behind the partition while a frame is in flight and no other
    request needs it. What it has then answers when the cloud is late or gone; it stops when the
    cloud answers."""
    max_ongoing_requests: int = Field(default=64, ge=1)
    """Requests that one router works on at a time."""
    max_queued_requests: int = Field(default=64, ge=0)
    """Requests that may wait beyond these; the next one gets a 429."""
    report_period_s: float = Field(default=1.0, gt=0)
    """How often a router sends its records to the scheduler."""

    @field_validator("site")
    @classmethod
    def _application_name_is_free(cls, site: str) -> str:
        if site_app_name(site) in (CLOUD_APP, SCHEDULER_APP):
            raise ValueError(f"a site may not be named {site!r}: its application would not be one")
        return site


class CloudArgs(Frozen):
    """The cloud's executor."""

    bundle: str | None = None
    """As in the sites'; a frame of another bundle is refused."""
    replicas: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    """Threads that one replica computes on."""
    max_batch: int = Field(default=8, ge=1)
    """Most requests that run through a block together."""
    max_ongoing_requests: int = Field(default=64, ge=1)


class SchedulerArgs(Frozen):
    """The scheduler."""

    bundle: str | None = None
    policy: Literal[
        "learned",
        "least_latency",
        "static",
        "edgent",
        "edgent_dynamic",
        "spinn",
        "neurosurgeon",
        "edgeml",
    ] = "learned"
    """``learned`` is the bundle's, or ``policy_file``. ``least_latency`` decides from profiles and
    what it sees, also where there is no learned one that can be used. ``static`` pushes the
    bundle's plan. The others are its peers', each for a bundle of its own; ``edgeml`` needs a
    ``policy_file``. They keep to ``least_partition`` too, which in their papers is 0."""
    policy_file: str | None = None
    """A learned policy that takes the place of the bundle's, or EdgeML's."""
    learn: bool = False
    """Try plans that the forecast holds for nearly as good, and let a trainer learn from what comes
    of them; what it learned is promoted when it is better in the simulator."""
    journal: str | None = None
    """File for every decision, promotion and roll-back; policies lie beside it."""
    slo_classes: tuple[SloClass, ...] = Field(default=SLO_CLASSES, min_length=1)
    """As in the sites'."""
    period_s: float = Field(default=1.0, gt=0)
    """Time between decisions."""
    lifetime_s: float = Field(default=10.0, gt=0)
    """Age at which routers give up a plan for the static one."""
    edge_slowdown: float = Field(default=1.0, gt=0)
    """How many times slower than the bundle's profile an edge is, until its requests tell."""
    round_trip_ms: float = Field(default=5.0, ge=0)
    """What a call to the cloud takes beside its work, until requests tell."""
    least_partition: int = Field(default=1, ge=0)
    """Blocks that stay at the edge, so that an exit is in hand before the link is crossed."""
