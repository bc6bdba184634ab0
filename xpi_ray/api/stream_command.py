"""`xpi stream`: an image file to a running server, and each exit's answer as soon as it comes."""

import json
from pathlib import Path
from typing import Annotated

import typer

from xpi_ray.api.client import Client
from xpi_ray.api.schema import StreamEnd, StreamExit

EXAMPLES = """
Examples:

  xpi stream photo.jpg

  xpi stream photo.jpg --stop-within-ms 50 --json
"""


def stream(
    file: Annotated[Path, typer.Argument(help="PNG, JPEG or WebP file.")],
    server: Annotated[str, typer.Option(help="Address of the server.")] = "http://127.0.0.1:8000",
    stop_within_ms: Annotated[
        float | None,
        typer.Option(
            help="The answer may be needed at any time up to this; none: what all blocks take."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON per exit.")] = False,
) -> None:
    """Classify an image without a deadline: every exit's answer as it comes, until Ctrl-C."""
    with Client.of(server) as client:
        for part in client.stream(file, stop_within_ms):
            typer.echo(json.dumps(part.model_dump()) if as_json else _line(part))


def _line(part: StreamExit | StreamEnd) -> str:
    if isinstance(part, StreamEnd):
        return f"{part.elapsed_ms:9.3f} ms  {part.status} after block {part.blocks}"
    return (
        f"{part.elapsed_ms:9.3f} ms  exit {part.exit:<3} {part.label}  (right with "
        f"{part.confidence:.0%}, entropy {part.entropy:.4f})"
    )
