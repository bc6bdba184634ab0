"""`xpi train-policy`: learn which plan fits which load, link and machine; resumes where it stopped.

bundle, traces ─► Task ─► Training ─► curve, checkpoints, policy.safetensors ─► a bundle with it
"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rl.task import make_task, read_sources
from rl.training import Algorithms, Training, quiet_ray
from xpi_ray.bundle import Bundle
from xpi_ray.policies.plan import SLO_CLASSES

EXAMPLES = """
Examples:

  xpi train-policy runs/policy

  xpi train-policy runs/policy-sac --algorithm sac --seed 1

  xpi train-policy runs/mine --bundle runs/cifar10/bundle --output runs/cifar10/bundle-learned
"""


def train_policy(
    folder: Annotated[Path, typer.Argument(help="Folder of the run; an unfinished one goes on.")],
    algorithm: Annotated[Algorithms, typer.Option(help="Of RLlib.")] = "ppo",
    bundle: Annotated[
        Path | None, typer.Option(help="Folder, or a packaged bundle's name; none: the default.")
    ] = None,
    traces: Annotated[
        Path | None,
        typer.Option(help="Folder with uplink, 5g and arrivals; none: $XPI_TRACES_DIR."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of networks, sites and actions.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Decisions in all; the default is the algorithm's.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for a copy of the bundle that holds the policy.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Train a scheduling policy for a bundle on the simulator."""
    loaded = Bundle.load(bundle)
    train, _ = read_sources(traces)
    task = make_task(loaded, SLO_CLASSES, train)
    quiet_ray()
    training = Training(task, algorithm, seed, folder, steps)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} decisions"),
        TimeRemainingColumn(),
        TextColumn("validation {task.fields[validation]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(algorithm, total=training.steps, validation="-")
        for row in training.run():
            progress.update(bar, completed=row.steps)
            if row.validation == row.validation:
                progress.update(bar, validation=f"{row.validation:+.3f}")
    training.close()
    if output is not None:
        loaded.with_policy(training.policy_path.read_bytes()).save(output)
    told: dict[str, float | str] = {**training.facts(), "policy": str(training.policy_path)}
    typer.echo(json.dumps(told, indent=1) if as_json else _sentence(told))


def _sentence(told: dict[str, float | str]) -> str:
    return (
        f"{told['steps']:,} decisions in {told['seconds']:.0f} s; the best policy on validation "
        f"({told['best']:+.3f} beside the forecast alone) is {told['policy']}"
    )
