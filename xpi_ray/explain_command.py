"""`xpi explain`: what a network saw in an image, as a picture and a table.

file ─► decode_image ─► explain ─┬─ draw ─► PNG
bundle ─► network, thresholds ───┴─ facts ─► table or JSON
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from xpi_ray.bundle import Bundle, find
from xpi_ray.compression.image import decode_image
from xpi_ray.errors import BundleError, RequestError
from xpi_ray.exits.rule import first_sure_exit
from xpi_ray.explain.picture import draw
from xpi_ray.explain.sight import Explanation, explain_image
from xpi_ray.networks.xpi import XpiNetwork

EXAMPLES = """
Examples:

  xpi explain photo.jpg

  xpi explain photo.jpg --output cat.png --steps 100

  xpi explain photo.jpg --bundle runs/cifar10/bundle --json
"""


def explain(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file.")],
    bundle: Annotated[
        str | None,
        typer.Option(help="Folder, or a packaged bundle's name; none: the default."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The picture, a PNG file; none: IMAGE-explained.png.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, max=500, help="Gradients that each attribution averages.")
    ] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Draw what each exit answered about an image, and what in it the answers rest on."""
    output = output or Path(f"{image.stem}-explained.png")
    if output.suffix.lower() != ".png":
        raise RequestError(f"the picture is a PNG file, its name must end in .png; got {output}")
    if output.exists() and output.samefile(image):
        raise RequestError(f"the picture would overwrite {image}; choose another --output")
    loaded = Bundle.load(bundle)
    network = _network(loaded, find(bundle))
    explanation = explain_image(network, _read(image, network.image_size), steps)
    described = facts(loaded, explanation)
    manifest = loaded.manifest
    title = f"{image.name}, as {manifest.name} {manifest.version} sees it"
    figure = draw(explanation, manifest.labels, described["leaves_at"], title)
    try:
        figure.savefig(output, pil_kwargs={"optimize": True})
    except OSError as err:
        raise RequestError(f"cannot write {output}: {err.strerror}") from err
    described = {"image": str(image), "picture": str(output), **described}
    if as_json:
        typer.echo(json.dumps(described))
        return
    _show(described)


def facts(loaded: Bundle, explanation: Explanation) -> dict[str, Any]:
    """What is not in the picture's maps, ready for JSON; shares lie in 0..1."""
    labels, sights = loaded.manifest.labels, explanation.sights
    thresholds = loaded.manifest.calibrations[0].thresholds
    entropy = np.array([[sight.entropy for sight in sights]])
    leaves_at = int(first_sure_exit(entropy, np.array(thresholds))[0])
    return {
        "bundle": f"{loaded.manifest.name} {loaded.manifest.version}",
        "answer": labels[sights[leaves_at - 1].label],
        "leaves_at": leaves_at,
        "exits": [
            {
                "exit": sight.exit,
                "label": labels[sight.label],
                "score": sight.probability,
                "entropy": sight.entropy,
                "threshold": threshold,
                "branch_channels": sight.branch_channels,
                "channels": sight.channels,
                "branch_share": sight.branch_share,
            }
            for sight, threshold in zip(sights, thresholds, strict=True)
        ],
    }


def _network(loaded: Bundle, folder: Path) -> XpiNetwork:
    """The bundle's network, in the form in which it was trained.

    Raises:
        BundleError: It is of a kind that cannot be looked into.
    """
    if not isinstance(loaded.network, XpiNetwork):
        raise BundleError(
            f"{folder} holds a network of kind {loaded.manifest.network.kind!r}; "
            "`xpi explain` looks into Xpi networks only, such as `xpi train` makes"
        )
    return loaded.network.eval().requires_grad_(False)


def _read(file: Path, size: tuple[int, int]) -> np.typing.NDArray[np.uint8]:
    """The pixels that a server would see of a file.

    Raises:
        RequestError: The file cannot be read, or is no image that a server would take.
    """
    try:
        return decode_image(file.read_bytes(), size)
    except OSError as err:
        raise RequestError(f"cannot read {file}: {err.strerror}") from err
    except RequestError as err:
        raise type(err)(f"{file}: {err}") from err


def _show(described: dict[str, Any]) -> None:
    """Print a row for each exit, and where the picture lies."""
    columns = ("exit", "answer", "score", "entropy", "threshold", "leaves", "reads", "holds")
    table = Table(*columns, title=f"{described['image']}: {described['answer']}")
    for row in described["exits"]:
        table.add_row(
            str(row["exit"]),
            row["label"],
            f"{row['score']:.4f}",
            f"{row['entropy']:.4f}",
            f"{row['threshold']:.4f}",
            "here" if row["exit"] == described["leaves_at"] else "",
            f"{row['branch_channels']} of {row['channels']}",
            f"{row['branch_share']:.1%}",
        )
    console = Console(markup=False, highlight=False)
    console.print(table)
    console.print(
        "An exit reads so many of its block's channels; they hold so much of what counts for the "
        f"last answer.\nThe picture is {described['picture']}",
        soft_wrap=True,
    )
