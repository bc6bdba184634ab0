"""`xpi attach`: from a model that was trained elsewhere to one with exits, and a bundle of it."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from xpi_ray.compression.builder import CodecName
from xpi_ray.errors import TrainingError
from xpi_ray.networks.attach import attach_exits
from xpi_ray.networks.branched import BranchedNetwork
from xpi_ray.networks.own import own_callable
from xpi_ray.training.attaching import train_exits
from xpi_ray.training.command import BUNDLE, Restart, Resume, Version, check_folder, check_version
from xpi_ray.training.data import DATA_SETS, load
from xpi_ray.training.networks import colour_statistics
from xpi_ray.training.packing import pack
from xpi_ray.training.recipes import RECIPES, recipe
from xpi_ray.training.trainer import TrainingConfig, exit_accuracies

FROZEN_RATE, JOINT_RATE = 0.1, 0.6  # peaks; the backbone and all exits share the second
WIDEST_LADDER = 256  # channels; the ladder's models grow with their square

EXAMPLES = """
Examples:

  xpi attach my_models:resnet20 cifar10 --output runs/resnet20 --frozen

  xpi attach my_models:resnet20 cifar10 --output runs/resnet20-joint --exits 5 --epochs 12

  xpi attach my_models:vgg16 cifar100 --output runs/vgg16 --exits 2,4,7,10
  --mean 0.5071 0.4865 0.4409 --std 0.2673 0.2564 0.2762

where my_models.py lies in the working folder and holds

  def resnet20():
      model = ...
      model.load_state_dict(...)
      return model
"""


def attach(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME",
            help="A callable of yours without arguments, package.module:name, that returns a "
            "trained torch.nn.Module: normalised images to logits.",
        ),
    ],
    dataset: Annotated[str, typer.Argument(help=f"Data set: {', '.join(DATA_SETS)}.")],
    output: Annotated[Path, typer.Option(help="Folder of the run.")],
    exits: Annotated[
        str,
        typer.Option(
            help="Where: all, which is after each convolution where one tensor carries "
            "everything; some of these places, such as 2,4,7; or how many, such as 5, the model's "
            "own among them."
        ),
    ] = "all",
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Train branches alone; the model stays as it is.")
    ] = False,
    mean: Annotated[
        tuple[float, float, float] | None,
        typer.Option(
            help="Of each colour, 0..1, which the model wants taken off; 0 0 0 with --std 1 1 1 "
            "for a model that normalises inside.",
            show_default="the data set's",
        ),
    ] = None,
    std: Annotated[
        tuple[float, float, float] | None,
        typer.Option(
            help="Of each colour, by which it wants them divided.", show_default="the data set's"
        ),
    ] = None,
    training: Annotated[
        str,
        typer.Option(
            help="How exits are trained: "
            + ", ".join(name for name, kind in RECIPES.items() if not kind.looks_inside)
            + "."
        ),
    ] = "distilled",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 8,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    peak_learning_rate: Annotated[
        float | None,
        typer.Option(show_default=f"{FROZEN_RATE} with --frozen, else {JOINT_RATE}"),
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    version: Version = "1",
    resume: Resume = False,
    restart: Restart = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Attach exits to a model of yours, train them and make a bundle of it."""
    sys.path.insert(0, str(Path.cwd()))  # a module in the working folder counts
    wanted, chosen = _exits(exits), recipe(training)
    check_version(version)
    check_folder(output, resume, restart)
    usual = FROZEN_RATE if frozen else JOINT_RATE
    rate = usual if peak_learning_rate is None else peak_learning_rate
    if not rate > 0:
        raise TrainingError(f"expected a learning rate above 0, got {rate}")
    built = own_callable(model, "model", "()")()
    if not isinstance(built, torch.nn.Module):
        raise TrainingError(f"{model} must return a torch.nn.Module, got {type(built).__name__}")
    splits = load(dataset)
    images = splits.train.images
    usual_mean, usual_std = colour_statistics(images)
    torch.manual_seed(seed)
    network = attach_exits(
        built,
        num_classes=len(splits.classes),
        image_size=(images.shape[2], images.shape[3]),
        mean=mean or usual_mean,
        std=std or usual_std,
        exits=wanted,
    )
    config = TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        peak_learning_rate=rate,
        seed=seed,
        purpose=f"{training} of exits {exits} of {model} on {dataset}, "
        f"{'frozen' if frozen else 'joint'}, mean {network.spec.mean}, std {network.spec.std}",
    )
    before = exit_accuracies(network, splits.validation)[-1]
    typer.echo(f"the model's own validation accuracy is {before:.2%}", err=True)
    with Progress(console=Console(stderr=True)) as progress:

        def track(
            items: Iterable[tuple[Tensor, Tensor]], total: int, description: str
        ) -> Iterable[tuple[Tensor, Tensor]]:
            return progress.track(items, total=total, description=description)

        accuracies = train_exits(network, splits, chosen, config, output, frozen, track, resume)
        bundle = pack(
            network,
            splits,
            version,
            lambda items, what: progress.track(items, description=what),
            codec=_codec(network),
        )
    bundle.save(output / BUNDLE)
    _tell(network.exits, before, accuracies, output / BUNDLE, as_json)


def _exits(text: str) -> Sequence[int] | int | None:
    """What `--exits` says."""
    if text == "all":
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as err:
        raise TrainingError(
            f"expected --exits all, a number, or places such as 2,4,7; got {text!r}"
        ) from err
    return numbers if "," in text else numbers[0]


def _codec(network: BranchedNetwork) -> CodecName:
    """The ladder, unless carries are too wide for it."""
    widths = [network.carry_shape(block)[0] for block in range(1, network.num_blocks)]
    return "ladder" if max(widths, default=0) <= WIDEST_LADDER else "shuffled_lz4"


def _tell(
    exits: Sequence[int], before: float, accuracies: list[float], bundle: Path, as_json: bool
) -> None:
    if as_json:
        told = {"bundle": str(bundle), "model_accuracy": before, "validation_accuracy": accuracies}
        typer.echo(json.dumps(told))
        return
    title = f"the model alone: {before:.2%}"
    table = Table("exit", "validation accuracy", title=title)
    for number, accuracy in zip(exits, accuracies, strict=True):
        table.add_row(str(number), f"{accuracy:.2%}")
    Console().print(table)
    typer.echo(f"xpi serve --bundle {bundle}")
