"""`xpi train`: from a data set to a trained network, and a bundle of it, in a run's folder."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from xpi_ray.networks.architectures import xpi12
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.averaging import averaged_if_better
from xpi_ray.training.data import load
from xpi_ray.training.objectives import JointCrossEntropy, rising_weights
from xpi_ray.training.packing import pack
from xpi_ray.training.trainer import Trainer, TrainingConfig, read_weights

BUNDLE = "bundle"  # folder of the bundle, beside the trainer's own files
FIRST_EXIT_WEIGHT = 0.3

EXAMPLES = """
Examples:

  xpi train cifar10 --output runs/cifar10

  xpi train cifar10 --output runs/cifar10 --resume

  xpi train cifar10 --output runs/longer --start-from runs/cifar10 --epochs 10 \
      --average-with runs/cifar10

  xpi train cifar10 --output runs/quick --epochs 2 --json
"""


def train(
    dataset: Annotated[str, typer.Argument(help="Data set: cifar10.")] = "cifar10",
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/cifar10"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    peak_learning_rate: Annotated[float, typer.Option()] = 0.2,
    seed: Annotated[int, typer.Option()] = 0,
    version: Annotated[str, typer.Option(help="Version that the bundle will carry.")] = "1",
    start_from: Annotated[
        Path | None, typer.Option(help="Folder of a run whose weights to start from.")
    ] = None,
    average_with: Annotated[
        Path | None,
        typer.Option(help="Folder of a run to average weights with, if validation gains by it."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the folder's checkpoint.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a 12-block network; every exit at once, with plain cross-entropy."""
    config = TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        peak_learning_rate=peak_learning_rate,
        seed=seed,
    )
    splits = load(dataset)
    torch.manual_seed(seed)
    images = splits.train.images
    mean, std = colour_statistics(images)
    height, width = images.shape[2:]
    spec = xpi12(len(splits.classes), (height, width), mean, std)
    network = XpiNetwork(spec)
    if start_from is not None:
        network.load_state_dict(read_weights(start_from))
    objective = JointCrossEntropy(rising_weights(network.num_blocks, FIRST_EXIT_WEIGHT))
    with Progress(console=Console(stderr=True)) as progress:

        def track(
            items: Iterable[tuple[Tensor, Tensor]], total: int, description: str
        ) -> Iterable[tuple[Tensor, Tensor]]:
            return progress.track(items, total=total, description=description)

        trainer = Trainer(network, objective, config, output, track)
        if resume:
            trainer.resume()
        accuracies = trainer.run(splits.train, splits.validation)
        if average_with is not None:
            accuracies = averaged_if_better(network, read_weights(average_with), splits, accuracies)
        bundle = pack(
            network, splits, version, lambda items, what: progress.track(items, description=what)
        )
    bundle.save(output / BUNDLE)
    if as_json:
        found = {"bundle": str(output / BUNDLE), "validation_accuracy": accuracies}
        typer.echo(json.dumps(found))
        return
    table = Table("exit", "validation accuracy", title=f"{dataset}, {epochs} epochs")
    for number, accuracy in enumerate(accuracies, start=1):
        table.add_row(str(number), f"{accuracy:.2%}")
    Console().print(table)
    typer.echo(f"xpi serve --bundle {output / BUNDLE}")


def colour_statistics(
    images: Tensor,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each colour, 0..1, of uint8 images (n, 3, H, W)."""
    pixels = images.transpose(0, 1).flatten(1).double() / 255  # (3, n·H·W)
    mean, std = pixels.mean(1).tolist(), pixels.std(1).tolist()
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
