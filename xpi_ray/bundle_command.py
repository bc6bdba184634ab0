"""Show what a bundle holds, or check that its files are whole.

folder ─► Bundle.load (checks every hash) ─► facts ─► tables or JSON
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from xpi_ray.bundle import NEEDED, OPTIONAL, SUMS, Bundle, find

EXAMPLES = """
Examples:

  xpi bundle show

  xpi bundle show runs/cifar10/bundle --json

  xpi bundle verify runs/cifar10/bundle
"""

FILES = (*NEEDED, *OPTIONAL, SUMS)

Where = Annotated[
    str | None,
    typer.Argument(metavar="PATH", help="Folder, or a packaged bundle's name; none: the default."),
]

bundle = typer.Typer(no_args_is_help=True, help="Show what a bundle holds, or check its files.")


@bundle.command()
def show(
    path: Where = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Show network, accuracy, costs, plan and files of a bundle."""
    described = facts(Bundle.load(path), find(path))
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    console = Console()
    for table in _tables(described):
        console.print(table)


@bundle.command()
def verify(path: Where = None) -> None:
    """Check every file's hash, and that the parts fit together."""
    loaded, folder = Bundle.load(path), find(path)
    typer.echo(
        f"{folder}: {loaded.manifest.name} {loaded.manifest.version} is whole "
        f"({len(files(folder))} files, digest {loaded.digest.hex()})"
    )


def facts(loaded: Bundle, folder: Path) -> dict[str, Any]:
    """All that people ask of a bundle, ready for JSON; shares lie in 0..1."""
    manifest, outcomes = loaded.manifest, loaded.outcomes
    whole = manifest.model_dump(mode="json", exclude={"format", "network", "macs"})
    exits = zip(outcomes.accuracy(), manifest.macs, strict=True)
    return {
        **whole,
        "digest": loaded.digest.hex(),
        "folder": str(folder),
        "network": {
            "kind": manifest.network.kind,
            "blocks": loaded.network.num_blocks,
            "parameters": sum(weights.numel() for weights in loaded.network.parameters()),
        },
        "levels": loaded.ladder.levels,
        "validation_images": len(outcomes.correct),
        "exits": [
            {"exit": number, "accuracy": accuracy, "cumulative_macs": macs}
            for number, (accuracy, macs) in enumerate(exits, start=1)
        ],
        "files_bytes": {path.name: path.stat().st_size for path in files(folder)},
    }


def files(folder: Path) -> list[Path]:
    """A bundle's files; nothing else that lies in the folder."""
    return [folder / name for name in FILES if (folder / name).is_file()]


def _tables(described: dict[str, Any]) -> list[Table]:
    plan, network = described["static_plan"], described["network"]
    about = Table.grid("", "", padding=(0, 2))
    rows = {
        "bundle": f"{described['name']} {described['version']} ({described['digest']})",
        "folder": described["folder"],
        "about": described["description"],
        "network": f"{network['kind']}, {network['blocks']} blocks, "
        f"{network['parameters']:,} parameters",
        "codec": f"{described['codec']}, levels: {described['levels']}",
        "labels": ", ".join(described["labels"]),
        "static plan": f"partition {plan['partition']}, level {plan['level']}, thresholds "
        + " ".join(f"{threshold:.2f}" for threshold in plan["thresholds"]),
        "files": ", ".join(f"{name} {size:,} B" for name, size in described["files_bytes"].items()),
    }
    for name, value in rows.items():
        about.add_row(name, value)
    profiles = described["profiles"]
    columns = [f"ms, {name}" for name in profiles]
    title = f"exits, on {described['validation_images']:,} validation images"
    exits = Table("exit", "accuracy", "MACs so far", *columns, title=title)
    for row in described["exits"]:
        costs = [sum(profile["block_ms"][: row["exit"]]) for profile in profiles.values()]
        exits.add_row(
            str(row["exit"]),
            f"{row['accuracy']:.2%}",
            f"{row['cumulative_macs']:,}",
            *(f"{cost:.2f}" for cost in costs),
        )
    machines = Table("profile", "machine", "threads", "encode ms", "decode ms")
    for name, profile in profiles.items():
        times = [f"{profile[key]:.2f}" for key in ("encode_ms", "decode_ms")]
        machines.add_row(name, profile["machine"], str(profile["threads"]), *times)
    return [about, exits, machines]
