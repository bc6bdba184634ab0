"""Where the parts are joined: one function for each application, named in the YAML files.

SiteArgs ─► site ─► Router (─► EdgeExecutor)   on nodes labelled edge and with the site's name
CloudArgs ─► cloud ─► CloudExecutor             on nodes labelled cloud
SchedulerArgs ─► scheduler ─► Scheduler         likewise
"""

from typing import Any, cast

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import BackpressureConfig, RequestRouterConfig

from deployments.args import CloudArgs, SchedulerArgs, SiteArgs
from deployments.cloud import CloudExecutor
from deployments.edge import EdgeExecutor
from deployments.placement import CLOUD, edge_of, require
from deployments.router import Router
from deployments.scheduler import Scheduler
from xpi_ray.errors import OverloadError

# Deadlines are tens of milliseconds: a replica that dies is missed, and a place that comes free is
# taken, much sooner than by Serve's defaults (10 s, 30 s; 25 ms doubling to 500 ms).
HEALTH: dict[str, Any] = {
    "health_check_period_s": 1,
    "health_check_timeout_s": 5,
    "graceful_shutdown_timeout_s": 2,
}
SOON = RequestRouterConfig(initial_backoff_s=0.002, backoff_multiplier=2, max_backoff_s=0.02)
CPUS = 0.1  # what a replica asks Ray for; Ray only counts, it does not bind


def site(args: SiteArgs) -> Application:
    """One site: `import_path: deployments.app:site`."""
    args = SiteArgs.model_validate(args)
    labels = edge_of(args.site)
    require(labels)
    edge = None
    if args.edge_replicas:
        edge = _deployment(
            EdgeExecutor,
            labels,
            num_replicas=args.edge_replicas,
            max_ongoing_requests=args.max_ongoing_requests,
            max_queued_requests=args.max_queued_requests,
            request_router_config=SOON,
        ).bind(args)
    router = _deployment(
        Router,
        labels,
        num_replicas=args.router_replicas,
        max_ongoing_requests=args.max_ongoing_requests,
        max_queued_requests=args.max_queued_requests,
        backpressure_config=BackpressureConfig(
            status_code=OverloadError.status, retry_after_s=OverloadError.retry_after_s
        ),
    )
    return router.bind(args, edge)


def cloud(args: CloudArgs) -> Application:
    """The cloud: `import_path: deployments.app:cloud`."""
    args = CloudArgs.model_validate(args)
    require(CLOUD)
    executor = _deployment(
        CloudExecutor,
        CLOUD,
        num_replicas=args.replicas,
        max_ongoing_requests=args.max_ongoing_requests,
        request_router_config=SOON,
    )
    return executor.bind(args)


def scheduler(args: SchedulerArgs) -> Application:
    """The scheduler: `import_path: deployments.app:scheduler`."""
    args = SchedulerArgs.model_validate(args)
    require(CLOUD)
    return _deployment(Scheduler, CLOUD, max_ongoing_requests=1_000).bind(args)


def _deployment(kind: type, labels: dict[str, str], **options: object) -> Deployment:
    """A plain class as a deployment of its own name, on nodes that carry ``labels``."""
    actor = {"num_cpus": CPUS, "label_selector": labels}
    made = serve.deployment(kind, name=kind.__name__, ray_actor_options=actor, **HEALTH, **options)
    return cast(Deployment, made)
