"""`xpi train-edgeml`: learns EdgeML's thresholds and partitions for a bundle, on the simulator.

bundle, traces ─► World ─► train ─► curve, policy.safetensors
"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from rl.edgeml.environment import make_world
from rl.edgeml.training import STEPS, train
from rl.task import read_sources
from rl.training import quiet_ray
from xpi_ray.bundle import Bundle
from xpi_ray.policies.plan import SLO_CLASSES

EXAMPLES = """
Examples:

  xpi train-edgeml runs/edgeml --bundle runs/peers/edgeml
"""


def train_edgeml(
    folder: Annotated[Path, typer.Argument(help="Folder for the curve and the policy.")],
    bundle: Annotated[
        Path | None, typer.Option(help="Folder, or a packaged bundle's name; none: the default.")
    ] = None,
    traces: Annotated[
        Path | None,
        typer.Option(help="Folder with uplink, 5g and arrivals; none: $XPI_TRACES_DIR."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of networks, sites and actions.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Decisions in all.")] = STEPS,
    least_partition: Annotated[
        int, typer.Option(min=0, help="Blocks that must run at the edge, as the scheduler's.")
    ] = 0,
) -> None:
    """Train EdgeML's policy for a bundle; the scheduler takes it as ``policy_file``."""
    sources, _ = read_sources(traces)
    world = make_world(Bundle.load(bundle), SLO_CLASSES, sources, least_partition)
    quiet_ray()
    best = float("-inf")
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("training", total=steps)
        for row in train(world, folder, seed, steps):
            best = max(best, row.validation)
            progress.update(
                bar, completed=row.steps, description=f"mean reward {row.validation:+.3f}"
            )
    policy = str(folder / "policy.safetensors")
    typer.echo(json.dumps({"policy": policy, "best_validation": best, "steps": row.steps}))
