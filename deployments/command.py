"""`xpi serve`: a cluster of one edge node and one cloud node on this machine, until Ctrl-C."""

import contextlib
import json
import logging
import signal
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from deployments.args import CloudArgs, SchedulerArgs, SiteArgs
from deployments.deciding import Decider
from deployments.local_cluster import LocalCluster
from xpi_ray import __version__
from xpi_ray.bundle import Bundle

LOOPBACK_ROUND_TRIP_MS = 2.0  # what the scheduler assumes of the local link at first

EXAMPLES = """
Examples:

  xpi serve

  xpi serve --bundle runs/cifar10/bundle --port 9000

  xpi serve --edge-slowdown 1 --policy static --partition 6

  xpi serve --learn --journal runs/journal.jsonl

  xpi serve --proxy python
"""


def serve(
    bundle: Annotated[
        str | None, typer.Option(help="Folder of a bundle, or a packaged one's name.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port on 127.0.0.1.")] = 8000,
    edge_slowdown: Annotated[
        float,
        typer.Option(min=1, help="How many times weaker than this machine the edge acts."),
    ] = 4.0,
    policy: Annotated[
        Literal["learned", "least_latency", "static"],
        typer.Option(
            help="Who decides: the bundle's learned policy (without one, least_latency), a rule, "
            "or nobody: static keeps to the bundle's own plan."
        ),
    ] = "learned",
    partition: Annotated[
        int | None, typer.Option(min=0, help="With --policy static: where to split.")
    ] = None,
    learn: Annotated[
        bool, typer.Option("--learn", help="Let the learned policy learn on from live requests.")
    ] = False,
    journal: Annotated[
        Path | None, typer.Option(help="File for every decision, which `xpi replay` makes again.")
    ] = None,
    proxy: Annotated[
        Literal["haproxy", "python"], typer.Option(help="HAProxy, or Serve's slower own proxy.")
    ] = "haproxy",
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as JSON.")] = False,
) -> None:
    """Start a local cluster of one edge and one cloud node, and serve until Ctrl-C."""
    if partition is not None and policy != "static":
        raise typer.BadParameter("--partition needs --policy static; the scheduler decides else")
    if learn and policy != "learned":
        raise typer.BadParameter("--learn needs --policy learned; rules do not learn")
    loaded = Bundle.load(bundle)
    manifest = loaded.manifest
    absolute = str(Path(bundle).resolve()) if bundle and Path(bundle).exists() else bundle
    console = Console(stderr=True)
    site = SiteArgs(bundle=absolute, edge_slowdown=edge_slowdown, partition=partition)
    scheduler = None
    decider = ""
    if policy != "static":
        scheduler = SchedulerArgs(
            bundle=absolute,
            policy=policy,
            learn=learn,
            journal=str(journal.resolve()) if journal else None,
            edge_slowdown=edge_slowdown,
            round_trip_ms=LOOPBACK_ROUND_TRIP_MS,
        )
        decider = Decider(scheduler, loaded).name
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    cluster = LocalCluster(site.site, port, proxy)
    with contextlib.ExitStack() as stack:
        with console.status("starting one edge node and one cloud node…"):
            stack.enter_context(cluster)
        with console.status("deploying router, edge, cloud and scheduler…"):
            cluster.deploy(site, CloudArgs(bundle=absolute), scheduler)
        if as_json:
            typer.echo(json.dumps({"url": cluster.url, "model": manifest.name}))
        else:
            banner = _banner(cluster, site, manifest.name, len(manifest.macs), decider)
            console.print(banner, soft_wrap=True)  # so that its commands can be copied
        stop.wait()
        console.print("stopping…")
    console.print("stopped")


def _banner(cluster: LocalCluster, site: SiteArgs, model: str, blocks: int, decider: str) -> str:
    pace = "" if site.edge_slowdown == 1 else f", acting {site.edge_slowdown:g} times weaker"
    scheduler = f", Scheduler with policy {decider}" if decider else ""
    return f"""[bold]xpi_ray {__version__}[/bold] serves {model} ({blocks} blocks) at {cluster.url}
  edge   node labelled xpi-tier=edge,xpi-site={site.site}: Router with blocks 1..p{pace}
  cloud  node labelled xpi-tier=cloud: CloudExecutor with p+1..{blocks}{scheduler}

Send a photo:
  curl -F image=@tests/data/cat.jpg -F deadline_ms=500 {cluster.url}/v1/classify
  xpi classify tests/data/cat.jpg --deadline-ms 500

Measure its nodes, while it has nothing else to do:
  {cluster.joining} xpi profile --address auto
End what runs at its edge, with the answers in hand:
  {cluster.joining} xpi preempt

Ctrl-C stops it."""
