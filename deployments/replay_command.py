"""`xpi replay`: every decision of the scheduler's journal made again, and what differs.

journal, policies beside it, bundle ─► replay ─► differences; exit code 1 if there are any
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from deployments.journal import replay as replayed

EXAMPLES = """
Examples:

  xpi replay runs/journal.jsonl

  xpi replay runs/journal.jsonl --bundle runs/cifar10/bundle
"""


def replay(
    journal: Annotated[Path, typer.Argument(help="File that `xpi serve --journal` wrote.")],
    bundle: Annotated[
        str | None, typer.Option(help="The bundle that was served; none: the one it names.")
    ] = None,
) -> None:
    """Make every decision of a journal again, and print those that come out differently."""
    count = differences = 0
    for difference in replayed(journal, bundle):
        count += 1
        if difference is not None:
            differences += 1
            typer.echo(json.dumps(difference._asdict()))
    typer.echo(f"{count} decisions, {differences} different", err=True)
    if differences:
        raise typer.Exit(1)
