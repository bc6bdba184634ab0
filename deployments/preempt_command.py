"""`xpi preempt`: whatever runs at a site's edge ends at once, with the answers in hand.

xpi preempt ─► every EdgeExecutor replica of the site; without any its routers, which run its part
"""

import json
from typing import Annotated

import typer
from ray import serve

from deployments.args import SiteArgs, site_app_name
from deployments.driver import ADDRESS_HELP, joined
from xpi_ray.errors import TierLostError

EXAMPLES = """
Examples:

  xpi preempt

  xpi preempt --site site-2 --address 10.0.0.1:6379 --json
"""
PATIENCE_S = 10.0


def preempt(
    site: Annotated[str, typer.Option(help="Whose edge.")] = SiteArgs.model_fields["site"].default,
    address: Annotated[
        str, typer.Option(help=f"The Ray cluster that serves: {ADDRESS_HELP}")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """End all requests that run at a site's edge at once; each is answered with what it has."""
    with joined(address):
        ended = preempt_site(site)
    typer.echo(json.dumps({"site": site, "ended": ended}) if as_json else f"{site}: {ended} ended")


def preempt_site(site: str) -> int:
    """End what runs at a site's edge; returns how many requests that were.

    Args:
        site: Its name, on the cluster that this process is a driver of.

    Raises:
        TierLostError: The cluster serves no such site.
    """
    name = site_app_name(site)
    applications = serve.status().applications
    if name not in applications:
        served = ", ".join(sorted(applications)) or "none"
        raise TierLostError(f"no application {name} on this cluster, expected one of: {served}")
    edge = next(d for d in ("EdgeExecutor", "Router") if d in applications[name].deployments)
    handle = serve.get_deployment_handle(edge, name)
    counts: list[int] = handle.broadcast("preempt").results(timeout_s=PATIENCE_S)
    return sum(counts)
