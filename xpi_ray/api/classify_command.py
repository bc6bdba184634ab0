"""`xpi classify`: image files to a running server, and its answers to the terminal."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from xpi_ray.api.client import Client
from xpi_ray.api.schema import ClassifyAnswer
from xpi_ray.errors import UnavailableError, XpiError

EXAMPLES = """
Examples:

  xpi classify photo.jpg

  xpi classify photo.jpg cat.png --deadline-ms 50

  xpi classify *.webp --server http://edge:8000 --exits --json
"""


def classify(
    files: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.")],
    server: Annotated[str, typer.Option(help="Address of the server.")] = "http://127.0.0.1:8000",
    deadline_ms: Annotated[
        float | None, typer.Option(help="Time that the server may take for each file.")
    ] = None,
    exits: Annotated[
        bool, typer.Option("--exits", help="Every exit's answer in the JSON; tables have them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON per file.")] = False,
) -> None:
    """Classify images on a running server, and show which exit answered and what took the time."""
    answers: dict[Path, ClassifyAnswer] = {}
    failed = False
    with Client.of(server) as client:
        for file in files:
            try:
                answer = client.classify(file, deadline_ms, exits or not as_json)
            except XpiError as err:
                typer.echo(f"{file}: {err}", err=True)
                failed = True
                if isinstance(err, UnavailableError):
                    break
                continue
            answers[file] = answer
            if as_json:
                document = {"file": str(file), **answer.model_dump(exclude_none=True)}
                typer.echo(json.dumps(document))
    if answers and not as_json:
        _show(answers)
    if failed:
        raise typer.Exit(1)


def _show(answers: dict[Path, ClassifyAnswer]) -> None:
    console = Console(markup=False, highlight=False)
    summary = Table(
        Column("file", overflow="fold"),
        "label",
        "score",
        "exit",
        "tier",
        "status",
        "entropy",
        "total ms",
    )
    for file, answer in answers.items():
        summary.add_row(
            str(file),
            answer.label,
            f"{answer.score:.4f}",
            str(answer.exit),
            answer.tier,
            answer.status,
            f"{answer.entropy:.4f}",
            f"{answer.stages.get('total_ms', 0.0):.1f}",
        )
    console.print(summary)
    for file, answer in answers.items():
        console.print(_stages(file, answer))
        console.print(_exits(file, answer))


def _stages(file: Path, answer: ClassifyAnswer) -> Table:
    table = Table("stage", "ms", title=f"{file.name}: time")
    for stage, ms in answer.stages.items():
        table.add_row(stage.removesuffix("_ms").replace("_", " "), f"{ms:.3f}")
    table.add_row("left of the deadline", f"{answer.budget_left_ms:.3f}")
    return table


def _exits(file: Path, answer: ClassifyAnswer) -> Table:
    table = Table("exit", "tier", "label", "score", "entropy", title=f"{file.name}: exits")
    for exit_ in answer.exits or []:
        table.add_row(
            str(exit_.exit), exit_.tier, exit_.label, f"{exit_.score:.4f}", f"{exit_.entropy:.4f}"
        )
    return table
