"""`xpi profile`: how long each block of a bundle takes on this machine.

bundle ─► measure_profile ─► table or JSON ─► with --output: a copy of the bundle for this machine
"""

import copy
import dataclasses
import json
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from xpi_ray.bundle import Bundle
from xpi_ray.profiles.measure import measure_profile
from xpi_ray.profiles.table import Profile

IMAGES = 16  # of noise: what a block takes does not depend on what it sees

EXAMPLES = """
Examples:

  xpi profile

  xpi profile runs/cifar10/bundle --repeats 200 --json

  xpi profile --output bundles/this-machine
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the times as JSON.")] = False,
) -> None:
    """Measure what each block of a bundle takes on this machine, one image at a time."""
    loaded = Bundle.load(bundle)
    network = copy.deepcopy(loaded.network).prepare()  # the copy is folded, the bundle is not
    level = loaded.manifest.static_plan.level
    images = _noise(network.image_size)
    measured = measure_profile(network, loaded.ladder, images, level, repeats, threads)
    if output is not None:
        profiles = {**loaded.manifest.profiles, "default": measured}
        manifest = loaded.manifest.model_copy(update={"profiles": profiles})
        dataclasses.replace(loaded, manifest=manifest).save(output)
    described = facts(loaded, measured)
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    _show(described, loaded.manifest.name)


def facts(loaded: Bundle, measured: Profile) -> dict[str, Any]:
    """The measurement beside what each exit is worth, ready for JSON; shares lie in 0..1."""
    block_ms, macs = measured.block_ms, loaded.manifest.macs
    total_ms = sum(block_ms)
    rows = zip(block_ms, accumulate(block_ms), macs, loaded.outcomes.accuracy(), strict=True)
    return {
        **measured.model_dump(exclude={"block_ms"}),
        "blocks": [
            {
                "block": number,
                "ms": ms,
                "cumulative_ms": round(so_far_ms, 4),
                "cumulative_macs": cumulative_macs,
                "share_of_time": round(ms / total_ms, 4),
                "exit_accuracy": accuracy,
            }
            for number, (ms, so_far_ms, cumulative_macs, accuracy) in enumerate(rows, start=1)
        ],
    }


def _show(described: dict[str, Any], name: str) -> None:
    title = f"{name} on {described['machine']}, {described['threads']} thread(s)"
    table = Table(
        "block", "ms", "ms so far", "MACs so far", "share of time", "exit accuracy", title=title
    )
    for row in described["blocks"]:
        table.add_row(
            str(row["block"]),
            f"{row['ms']:.3f}",
            f"{row['cumulative_ms']:.3f}",
            f"{row['cumulative_macs']:,}",
            f"{row['share_of_time']:.1%}",
            f"{row['exit_accuracy']:.2%}",
        )
    console = Console()
    console.print(table)
    encode_ms, decode_ms = described["encode_ms"], described["decode_ms"]
    console.print(f"A carry takes {encode_ms:.3f} ms to encode and {decode_ms:.3f} ms to decode.")


def _noise(size: tuple[int, int]) -> Tensor:
    return torch.randint(0, 256, (IMAGES, 3, *size), dtype=torch.uint8)
