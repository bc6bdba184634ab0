"""`xpi profile`: what each block of a bundle costs here, or on the machines of a running cluster.

bundle ─► measure_bundle ─► default ──────────┐
bundle ─► measure_nodes ─► cloud, edge:<site> ─┴─► tables or JSON, and with --output a copy
                                                  of the bundle that goes by them
"""

import dataclasses
import json
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from deployments.driver import ADDRESS_HELP
from deployments.profiling import Node, measure_bundle, measure_nodes
from xpi_ray.bundle import Bundle, find
from xpi_ray.profiles.energy import compute_j
from xpi_ray.profiles.table import Profile

EXAMPLES = """
Examples:

  xpi profile

  xpi profile runs/cifar10/bundle --repeats 200 --json

  xpi profile --slowdown 4 --output bundles/this-machine

  xpi profile --address auto --output bundles/this-cluster
"""


def profile(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH", help="Folder, or a packaged bundle's name; none: the default."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for a copy of the bundle that goes by these times.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of which the median counts.")] = 50,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads for one image; as many as a replica is given.")
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(help=f"Measure on a running Ray cluster's labelled nodes: {ADDRESS_HELP}"),
    ] = None,
    slowdown: Annotated[
        float,
        typer.Option(min=1, help="Times that the edge is to act weaker than what was measured."),
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the times as JSON.")] = False,
) -> None:
    """Measure what each block of a bundle takes, here or on the machines of a running cluster."""
    loaded = Bundle.load(bundle)
    if address is None:
        measured = {"default": measure_bundle(loaded, repeats, threads)}
        if slowdown > 1:
            measured["edge"] = measured["default"].slowed(slowdown)
    else:
        with Progress(console=Console(stderr=True)) as progress:
            measured = measure_nodes(
                address, find(bundle), repeats, threads, lambda nodes: _track(progress, nodes)
            )
        measured = {
            name: profile if name == "cloud" else profile.slowed(slowdown)
            for name, profile in measured.items()
        }
    if output is not None:
        profiles = {**loaded.manifest.profiles, **measured}
        manifest = loaded.manifest.model_copy(update={"profiles": profiles})
        dataclasses.replace(loaded, manifest=manifest).save(output)
    described = {name: facts(loaded, profile) for name, profile in measured.items()}
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    for name, found in described.items():
        _show(found, f"{loaded.manifest.name}, {name}: {found['machine']}")


def _track(progress: Progress, nodes: Iterable[Node]) -> Iterable[Node]:
    nodes = list(nodes)
    task = progress.add_task("", total=len(nodes))
    for node in nodes:
        progress.update(task, description=f"{node.name} on {node.address}")
        yield node
        progress.advance(task)


def facts(loaded: Bundle, measured: Profile) -> dict[str, Any]:
    """The measurement beside what each exit is worth, ready for JSON; shares lie in 0..1."""
    block_ms, manifest, num_blocks = measured.block_ms, loaded.manifest, loaded.network.num_blocks
    frames = loaded.outcomes.frame_bytes[manifest.static_plan.level].tolist()
    so_far_ms = list(accumulate(block_ms))
    accuracy = loaded.outcomes.accuracy()
    lists = {"block_ms", "batch_ms", "batch_p95_ms"}
    return {
        **measured.model_dump(exclude=lists),
        "batch_sizes": Profile.BATCH_SIZES,
        "blocks": [
            {
                "block": block + 1,
                "ms": block_ms[block],
                "batch_ms": measured.batch_ms[block],
                "batch_p95_ms": measured.batch_p95_ms[block],
                "cumulative_ms": round(so_far_ms[block], 4),
                "cumulative_macs": manifest.macs[block],
                "cumulative_edge_mj": round(compute_j(measured, block + 1) * 1000, 4),
                "share_of_time": round(block_ms[block] / so_far_ms[-1], 4),
                "frame_bytes": frames[block + 1] if block + 1 < num_blocks else 0,
                "exit_accuracy": accuracy[block],
            }
            for block in range(num_blocks)
        ],
    }


def _show(described: dict[str, Any], title: str) -> None:
    table = Table(
        "block",
        "ms",
        "p95 ms",
        f"ms for {Profile.BATCH_SIZES[-1]}",
        "ms so far",
        "MMAC so far",
        "edge mJ so far",
        "bytes sent on",
        "exit right",
        title=f"{title}, {described['threads']} thread(s)",
    )
    for row in described["blocks"]:
        table.add_row(
            str(row["block"]),
            f"{row['ms']:.3f}",
            f"{row['batch_p95_ms'][0]:.3f}",
            f"{row['batch_ms'][-1]:.3f}",
            f"{row['cumulative_ms']:.3f}",
            f"{row['cumulative_macs'] / 1e6:,.1f}",
            f"{row['cumulative_edge_mj']:.3f}",
            f"{row['frame_bytes']:,.0f}",
            f"{row['exit_accuracy']:.2%}",
        )
    console = Console()
    console.print(table)
    encode_ms, decode_ms = described["encode_ms"], described["decode_ms"]
    console.print(f"A carry takes {encode_ms:.3f} ms to encode and {decode_ms:.3f} ms to decode.")
