"""`xpi train-sacd`: trains the multi-branch AlexNet and measures what SAC-d's choices cost."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from rl.sacd.measuring import measure
from rl.sacd.training import TrainingConfig, train, trained
from xpi_ray.training.data import load, take

COSTS = "costs.json"


def train_sacd(
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/sacd"),
    epochs: Annotated[int, typer.Option(min=1)] = TrainingConfig.epochs,
    seed: Annotated[int, typer.Option()] = TrainingConfig.seed,
    images: Annotated[
        int, typer.Option(min=1, help="Of validation, to measure accuracies on.")
    ] = 2_000,
) -> None:
    """Train SAC-d's AlexNet on CIFAR-10 and measure it; stopped, it goes on at that epoch."""
    torch.set_num_threads(1)  # one core, as the served network has
    splits = load("cifar10")
    with Progress(console=Console(stderr=True)) as progress:

        def track(
            items: Iterable[tuple[Tensor, Tensor]], total: int, what: str
        ) -> Iterable[tuple[Tensor, Tensor]]:
            return progress.track(items, total=total, description=what)

        best = train(
            splits, output, TrainingConfig(epochs, seed=seed), track, progress.console.print
        )
        held_out = take(splits.validation, min(images, len(splits.validation.labels)))
        costs = measure(trained(output), held_out, progress.console.print)
    settings = {"images": len(held_out.labels), "split": "validation"}
    costs.save(output / COSTS, settings)
    typer.echo(json.dumps({"costs": str(output / COSTS), "validation_accuracy": best}))
