"""`xpi train`: from a data set to a trained network, and a bundle of it, in a run's folder."""

import copy
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from xpi_ray.bundle import Manifest
from xpi_ray.errors import TrainingError
from xpi_ray.networks.resnet import CifarResNet
from xpi_ray.training.averaging import averaged_if_better
from xpi_ray.training.data import DATA_SETS, load
from xpi_ray.training.fine_tuning import fine_tuned_if_better
from xpi_ray.training.networks import ARCHITECTURES, find_architecture, load_weights
from xpi_ray.training.objectives import Distilled, Objective
from xpi_ray.training.packing import pack
from xpi_ray.training.recipes import RECIPES, recipe
from xpi_ray.training.trainer import (
    CHECKPOINT,
    Trainer,
    TrainingConfig,
    exit_accuracies,
    read_checkpoint,
)

BUNDLE = "bundle"  # folder of the bundle, beside the trainer's own files
FINE_TUNE = "fine-tune"  # folder of the joint fine-tune, likewise
JUDGED_BY = {
    "fine_tune": "the mean validation accuracy of all exits",
    "average": "the validation accuracy of the last exit",
}  # what is kept only if it is better

EXAMPLES = """
Examples:

  xpi train mnist --epochs 3 --training plain_joint

  xpi train cifar10 --output runs/cifar10

  xpi train cifar10 --output runs/cifar10 --resume

  xpi train cifar10 --output runs/longer --start-from runs/cifar10 --epochs 12

  xpi train cifar10 --teacher cifar10_resnet20_akamaster.npz --fine-tune-epochs 2

  xpi train tiny_imagenet --training xai --reference efficientnet-lite0

  xpi train tiny_imagenet --architecture lite12 --epochs 3 --json

  xpi train cifar10 --architecture plain12

  xpi train cifar100 --architecture vgg16 --width 0.5 --epochs 30 --bfloat16
"""


# Options of all that ends in a bundle.
Version = Annotated[str, typer.Option(help="Version that the bundle will carry.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the folder's checkpoint, if there is one.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Begin anew, in place of the run in the folder.")
]


def _defaults(field: str) -> str:
    """What --help shows as the default of an option that depends on the architecture."""
    names: dict[str, list[str]] = {}
    for name, kind in ARCHITECTURES.items():
        names.setdefault(str(getattr(kind, field)), []).append(name)
    return ", ".join(f"{value} for {' and '.join(known)}" for value, known in names.items())


def train(
    dataset: Annotated[str, typer.Argument(help=f"Data set: {', '.join(DATA_SETS)}.")] = "cifar10",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run.", show_default="in runs/, by data set, architecture, training"
        ),
    ] = None,
    architecture: Annotated[
        str,
        typer.Option(
            help="Network: xpi12, or lite12 on a pretrained EfficientNet-Lite0; those that other "
            "systems are given, with exits that are not fused: plain12, plain_lite12, and with the "
            "last exit only single12, single_lite12; those of EINet: b_alexnet, flex_vgg16, vgg16, "
            "resnet50, msdnet21, msdnet40."
        ),
    ] = "xpi12",
    width: Annotated[
        float, typer.Option(help="Share of the published channels, of EINet's networks.")
    ] = 1.0,
    training: Annotated[
        str | None,
        typer.Option(
            help=f"How blocks are trained: {', '.join(RECIPES)}.",
            show_default=_defaults("training"),
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Network whose importance an xai training moves: compact, efficientnet-lite0, "
            "efficientnetv2-s, or package.module:name of a callable of yours.",
            show_default="compact",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 24,
    fine_tune_epochs: Annotated[
        int, typer.Option(min=0, help="Of all blocks together, kept if validation gains by it.")
    ] = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    peak_learning_rate: Annotated[
        float | None, typer.Option(show_default=_defaults("peak_learning_rate"))
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    version: Version = "1",
    start_from: Annotated[
        Path | None, typer.Option(help="Folder of a run or bundle whose weights to start from.")
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
    bfloat16: Annotated[
        bool,
        typer.Option(
            "--bfloat16", help="Multiply in 16 bits: half the time on processors that can."
        ),
    ] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Round the weights to 16 bits, which halves the bundle.")
    ] = False,
    resume: Resume = False,
    restart: Restart = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a network and make a bundle of it."""
    kind = find_architecture(architecture, width)
    training = training or kind.training
    if reference is not None and ":" in reference:  # a module in the working folder counts
        sys.path.insert(0, str(Path.cwd()))
    chosen = recipe(training, reference)
    output = output or Path("runs") / f"{dataset}-{architecture}-{training}"
    check_version(version)
    check_folder(output, resume, restart)
    named = architecture if width == 1 else f"{architecture} at {width:g}"
    purpose = f"{training} of {named} on {dataset} from {start_from}, teacher {teacher}"
    if peak_learning_rate is not None and not peak_learning_rate > 0:
        raise TrainingError(f"expected a learning rate above 0, got {peak_learning_rate}")
    config = TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        peak_learning_rate=peak_learning_rate or kind.peak_learning_rate,
        bfloat16=bfloat16,
        seed=seed,
        purpose=purpose if reference is None else f"{purpose}, reference {reference}",
    )
    splits = load(dataset)
    torch.manual_seed(seed)
    network = kind.build(splits)
    if start_from is not None:
        load_weights(network, start_from)
    if average_with is not None:
        other = copy.deepcopy(network)
        load_weights(other, average_with)
    prediction = _distilled(teacher, network.num_classes) if teacher is not None else None
    turns = chosen.turns(network, epochs, trained=start_from is not None)
    with Progress(console=Console(stderr=True)) as progress:

        def track(
            items: Iterable[tuple[Tensor, Tensor]], total: int, description: str
        ) -> Iterable[tuple[Tensor, Tensor]]:
            return progress.track(items, total=total, description=description)

        objective = chosen.objective(network, prediction, track)
        trainer = Trainer(network, objective, config, output, track, turns)
        if resume:
            trainer.resume()
        if trainer.epoch == 0:  # a fine-tune that is there is of a run that this one replaces
            shutil.rmtree(output / FINE_TUNE, ignore_errors=True)
        trained = _Trained(trainer.run(splits.train, splits.validation), objective.centres())
        if fine_tune_epochs:
            joint = chosen.joint().objective(network, prediction)
            tuned = fine_tuned_if_better(
                network,
                joint,
                config,
                fine_tune_epochs,
                output / FINE_TUNE,
                track,
                splits,
                trained.accuracies,
                resume,
            )
            trained.take("fine_tune", tuned, joint)
        if average_with is not None:
            joint = chosen.joint().objective(network, prediction)
            averaged = averaged_if_better(
                network, joint, other.state_dict(), splits, trained.accuracies
            )
            trained.take("average", averaged, joint)
        if half:
            network.half().float()
            trained.accuracies = exit_accuracies(network, splits.validation)
        bundle = pack(
            network,
            splits,
            version,
            lambda items, what: progress.track(items, description=what),
            trained.centres,
            codec=kind.codec,
        )
    bundle.save(output / BUNDLE)
    title = f"{dataset}, {training}, {epochs} epochs"
    _tell(trained, network.exits, output / BUNDLE, title, as_json)


@dataclass
class _Trained:
    """What is packed and told of a network, beside its weights."""

    accuracies: list[float]
    """Of every exit, on validation."""
    centres: Mapping[str, Tensor]
    verdicts: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(JUDGED_BY))
    """Whether each of ``JUDGED_BY`` was "kept" or "undone"; None is neither, as not asked for."""

    def take(self, what: str, found: list[float] | None, objective: Objective) -> None:
        """Note what was tried, and take over its accuracies and centres unless it was undone."""
        self.verdicts[what] = "undone" if found is None else "kept"
        if found is not None:
            self.accuracies, self.centres = found, objective.centres()


def _tell(trained: _Trained, exits: Sequence[int], bundle: Path, title: str, as_json: bool) -> None:
    for what, verdict in trained.verdicts.items():
        if verdict is not None:
            typer.echo(f"{what.replace('_', '-')} {verdict}, judged by {JUDGED_BY[what]}", err=True)
    if as_json:
        accuracies = {"validation_accuracy": trained.accuracies}
        typer.echo(json.dumps({"bundle": str(bundle), **accuracies, **trained.verdicts}))
        return
    table = Table("exit", "validation accuracy", title=title)
    for number, accuracy in zip(exits, trained.accuracies, strict=True):
        table.add_row(str(number), f"{accuracy:.2%}")
    Console().print(table)
    typer.echo(f"xpi serve --bundle {bundle}")


def check_version(version: str) -> None:
    """Raise ``TrainingError`` for what no manifest takes."""
    allowed = TypeAdapter(Annotated[str, Manifest.model_fields["version"]])
    try:
        allowed.validate_python(version)
    except ValidationError as err:
        raise TrainingError(
            f"a bundle cannot carry the version {version!r}, but such as '1' or '2.0-beta': "
            f"{err.errors()[0]['msg']}"
        ) from err


def check_folder(folder: Path, resume: bool, restart: bool) -> None:
    """Raise ``TrainingError`` where it is not said what is to become of a run in the folder."""
    if resume and restart:
        raise TrainingError("--resume goes on with a run and --restart replaces it; give one")
    path = folder / CHECKPOINT
    if resume or restart or not path.is_file():
        return
    saved = read_checkpoint(path)
    config = saved["config"]
    raise TrainingError(
        f"{folder} holds a run already: {config.get('purpose') or 'of unknown purpose'}, epoch "
        f"{saved['epoch']} of {config['epochs']}; --resume goes on with it, --restart replaces it, "
        "--output names another folder"
    )


def _distilled(teacher: Path, num_classes: int) -> Distilled:
    loaded = CifarResNet.load(teacher)
    if loaded.linear.out_features != num_classes:
        raise TrainingError(
            f"{teacher} tells {loaded.linear.out_features} classes apart and the data set has "
            f"{num_classes}; a teacher must have learnt the same data set"
        )
    return Distilled(loaded)
