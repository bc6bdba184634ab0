"""`xpi train-codec`: from a bundle to one that has the learned levels too, the smallest."""

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from xpi_ray.bundle import Bundle
from xpi_ray.errors import TrainingError
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.data import load
from xpi_ray.training.networks import weights_digest
from xpi_ray.training.packing import pack
from xpi_ray.training.transforms import TransformConfig, train_transforms

BUNDLE = "bundle"  # folder of the new bundle, beside the transforms

EXAMPLES = """
Examples:

  xpi train-codec

  xpi train-codec runs/cifar10/bundle --output runs/cifar10-codec --first-block 4

  xpi train-codec runs/mnist/bundle --steps 300 --json
"""


def train_codec(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH", help="Folder of a bundle, or a packaged one's name; none: the default."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; transforms that it holds are not trained again.",
            show_default="in runs/, by the bundle's name",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=100, help="Batches of 128 images in a round.")] = 1_000,
    rate_weight: Annotated[
        float, typer.Option(min=0, help="Of a bit in the loss: more makes frames smaller.")
    ] = 1.3e-3,
    seed: Annotated[int, typer.Option()] = 0,
    first_block: Annotated[
        int, typer.Option(min=1, help="After earlier blocks carries get no learned levels.")
    ] = 1,
    version: Annotated[
        str | None,
        typer.Option(
            help="Version that the bundle will carry.", show_default="that of the old one"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train transforms that make a bundle's carries smallest; stopped, it goes on at that round."""
    old = Bundle.load(path)
    if not isinstance(old.network, XpiNetwork):
        kind = old.manifest.network.kind
        raise TrainingError(f"expected a bundle that `xpi train` made, got one of kind {kind!r}")
    blocks = old.network.num_blocks
    if first_block >= blocks:
        raise TrainingError(f"--first-block must be below the {blocks} blocks, got {first_block}")
    splits = load(old.manifest.name)
    output = output or Path("runs") / f"{old.manifest.name}-codec"
    serving = copy.deepcopy(old.network).prepare()
    config = TransformConfig(steps, rate_weight, weights_digest(old.network), seed)
    with Progress(console=Console(stderr=True)) as progress:

        def track(items: Iterable[int], what: str) -> Iterable[int]:
            return progress.track(items, description=what)

        transforms = train_transforms(
            serving, splits.train, splits.validation, config, output, track, first_block
        )
        version = version or old.manifest.version
        bundle = pack(old.network, splits, version, track, old.centres, transforms)
    bundle.save(output / BUNDLE)
    _tell(bundle, output / BUNDLE, as_json)


def _tell(bundle: Bundle, folder: Path, as_json: bool) -> None:
    """Print what each level costs where the static plan sends carries."""
    outcomes, partition = bundle.outcomes, bundle.manifest.static_plan.partition
    accuracies = outcomes.resumed_correct[:, partition, :, -1].mean(1).tolist()
    sizes = outcomes.frame_bytes[:, partition].tolist()
    if as_json:
        levels = [
            {"level": level, "frame_bytes": size, "accuracy": accuracy}
            for level, (size, accuracy) in enumerate(zip(sizes, accuracies, strict=True))
        ]
        typer.echo(json.dumps({"bundle": str(folder), "partition": partition, "levels": levels}))
        return
    title = f"after block {partition}, on validation"
    table = Table("level", "bytes a frame", "accuracy of the last exit", title=title)
    for level, (size, accuracy) in enumerate(zip(sizes, accuracies, strict=True)):
        table.add_row(str(level), f"{size:,.0f}", f"{accuracy:.2%}")
    Console().print(table)
    typer.echo(f"xpi serve --bundle {folder}")
