"""`xpi train`: from a data set to a trained network, and a bundle of it, in a run's folder."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from xpi_ray.errors import TrainingError
from xpi_ray.networks.architectures import lite12, xpi12
from xpi_ray.networks.efficientnet import imagenet_weights
from xpi_ray.networks.resnet import CifarResNet
from xpi_ray.networks.trunk import TrunkNetwork
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.averaging import averaged_if_better
from xpi_ray.training.data import DATA_SETS, Splits, load
from xpi_ray.training.fine_tuning import fine_tuned_if_better
from xpi_ray.training.objectives import Distilled
from xpi_ray.training.packing import pack
from xpi_ray.training.recipes import RECIPES, recipe
from xpi_ray.training.trainer import Trainer, TrainingConfig, exit_accuracies, read_weights

BUNDLE = "bundle"  # folder of the bundle, beside the trainer's own files
FINE_TUNE = "fine-tune"  # folder of the joint fine-tune, likewise
ARCHITECTURES = ("xpi12", "lite12")
FROZEN_BLOCKS = 8  # of lite12; later ones hold most weights and little of the cost

EXAMPLES = """
Examples:

  xpi train mnist --epochs 3 --training plain_joint

  xpi train cifar10 --output runs/cifar10

  xpi train cifar10 --output runs/cifar10 --resume

  xpi train cifar10 --output runs/longer --start-from runs/cifar10 --epochs 12

  xpi train cifar10 --teacher cifar10_resnet20_akamaster.npz --fine-tune-epochs 2

  xpi train tiny_imagenet --architecture lite12 --training plain_joint --epochs 3 --json
"""


def train(
    dataset: Annotated[str, typer.Argument(help=f"Data set: {', '.join(DATA_SETS)}.")] = "cifar10",
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/DATASET")
    ] = None,
    architecture: Annotated[
        str, typer.Option(help="Network: xpi12, or lite12 on a pretrained EfficientNet-Lite0.")
    ] = "xpi12",
    training: Annotated[
        str, typer.Option(help=f"How blocks are trained: {', '.join(RECIPES)}.")
    ] = "xai_quantized",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 24,
    fine_tune_epochs: Annotated[
        int, typer.Option(min=0, help="Of all blocks together, kept if validation gains by it.")
    ] = 0,
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
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Weights (.npz) of a CIFAR ResNet that knows this data set, to learn from."
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Round the weights to 16 bits, which halves the bundle.")
    ] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the folder's checkpoint.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a 12-block network and make a bundle of it."""
    config = TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        peak_learning_rate=peak_learning_rate,
        seed=seed,
        purpose=f"{training} of {architecture} on {dataset} from {start_from}, teacher {teacher}",
    )
    chosen = recipe(training)
    output = output or Path("runs") / dataset
    splits = load(dataset)
    torch.manual_seed(seed)
    network = new_network(architecture, splits)
    if start_from is not None:
        _load_weights(network, start_from)
    prediction = _distilled(teacher, network.num_classes) if teacher is not None else None
    objective = chosen.objective(network, prediction)
    turns = chosen.turns(network, epochs, trained=start_from is not None)
    with Progress(console=Console(stderr=True)) as progress:

        def track(
            items: Iterable[tuple[Tensor, Tensor]], total: int, description: str
        ) -> Iterable[tuple[Tensor, Tensor]]:
            return progress.track(items, total=total, description=description)

        trainer = Trainer(network, objective, config, output, track, turns)
        if resume:
            trainer.resume()
        if trainer.epoch == 0:  # a fine-tune that is there is of a run that this one replaces
            shutil.rmtree(output / FINE_TUNE, ignore_errors=True)
        accuracies = trainer.run(splits.train, splits.validation)
        if fine_tune_epochs:
            accuracies = fine_tuned_if_better(
                network,
                prediction or chosen.prediction(),
                config,
                fine_tune_epochs,
                output / FINE_TUNE,
                track,
                splits,
                accuracies,
                resume,
            )
        if average_with is not None:
            accuracies = averaged_if_better(network, read_weights(average_with), splits, accuracies)
        if half:
            network.half().float()
            accuracies = exit_accuracies(network, splits.validation)
        bundle = pack(
            network,
            splits,
            version,
            lambda items, what: progress.track(items, description=what),
            objective.centres(),
        )
    bundle.save(output / BUNDLE)
    if as_json:
        found = {"bundle": str(output / BUNDLE), "validation_accuracy": accuracies}
        typer.echo(json.dumps(found))
        return
    table = Table("exit", "validation accuracy", title=f"{dataset}, {training}, {epochs} epochs")
    for number, accuracy in enumerate(accuracies, start=1):
        table.add_row(str(number), f"{accuracy:.2%}")
    Console().print(table)
    typer.echo(f"xpi serve --bundle {output / BUNDLE}")


def new_network(architecture: str, splits: Splits) -> XpiNetwork:
    """Build a network for a data set; lite12's trunk begins with ImageNet weights.

    Raises:
        TrainingError: The architecture is unknown, or the trunk's weights are not installed.
    """
    classes, images = len(splits.classes), splits.train.images
    size = (images.shape[2], images.shape[3])
    if architecture == "xpi12":
        return XpiNetwork(xpi12(classes, size, *colour_statistics(images)))
    if architecture == "lite12":
        network = TrunkNetwork(lite12(classes, size))
        network.load_trunk(imagenet_weights())
        network.freeze_trunk(FROZEN_BLOCKS)
        return network
    raise TrainingError(
        f"unknown architecture {architecture!r}; expected {' or '.join(ARCHITECTURES)}"
    )


def _distilled(teacher: Path, num_classes: int) -> Distilled:
    loaded = CifarResNet.load(teacher)
    if loaded.linear.out_features != num_classes:
        raise TrainingError(
            f"{teacher} tells {loaded.linear.out_features} classes apart and the data set has "
            f"{num_classes}; a teacher must have learnt the same data set"
        )
    return Distilled(loaded)


def _load_weights(network: XpiNetwork, folder: Path) -> None:
    try:
        network.load_state_dict(read_weights(folder))
    except RuntimeError as err:  # missing names or other shapes
        raise TrainingError(f"{folder} holds another network than this one: {err}") from err


def colour_statistics(
    images: Tensor,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each colour, 0..1, of uint8 images (n, 3, H, W)."""
    pixels = images.transpose(0, 1).flatten(1).double() / 255  # (3, n·H·W)
    mean, std = pixels.mean(1).tolist(), pixels.std(1).tolist()
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
