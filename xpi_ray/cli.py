"""The `xpi` program: one command for each entry point that the packages registered.

    argv ─► Commands ─ entry point group "xpi_ray.commands" ─► a function, or a Typer of sub-verbs

Only the command that runs is imported, as torch and Ray take seconds; the list of commands reads
the others' docstrings from their source.
"""

import ast
import sys
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from xpi_ray import __version__
from xpi_ray.errors import XpiError

if TYPE_CHECKING:
    from typer._click import Command, Context  # typer bundles click and does not re-export these

GROUP = "xpi_ray.commands"


class Commands(TyperGroup):
    """Knows the commands by name and one line, and imports the one that is called."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._entries = {entry.name: entry for entry in entry_points(group=GROUP)}
        self.commands = {
            name: TyperCommand(name, help=summary(entry))
            for name, entry in sorted(self._entries.items())
        }

    def resolve_command(
        self, ctx: "Context", args: list[str]
    ) -> "tuple[str | None, Command | None, list[str]]":
        """Put the real command in the place of the one that only stands in the list."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in self._entries:
            command = load(self._entries[name])
        return name, command, rest

    def invoke(self, ctx: "Context") -> object:
        """Run the command; an error of ours is one line, whoever raised it."""
        try:
            return super().invoke(ctx)
        except XpiError as err:
            typer.echo(f"xpi: {err}", err=True)
            raise typer.Exit(1) from err


def summary(entry: EntryPoint) -> str:
    """First line of the function's docstring, or else of its module's, without importing it."""
    try:
        spec = find_spec(entry.module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        return f"(not installed: {entry.module})"
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    documented: list[ast.Module | ast.FunctionDef] = [tree]
    documented += [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry.attr
    ]
    return (ast.get_docstring(documented[-1]) or "").partition("\n")[0]


def load(entry: EntryPoint) -> "Command":
    """Import a command; its module's ``EXAMPLES`` close its help."""
    target = entry.load()
    if isinstance(target, typer.Typer):
        command: Command = get_group(target)
    else:
        alone = typer.Typer(add_completion=False)
        alone.command(entry.name)(target)
        command = get_command(alone)
    command.epilog = getattr(sys.modules[entry.module], "EXAMPLES", None)
    return command


def show_version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        typer.echo(f"xpi {__version__}")
        raise typer.Exit


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def xpi(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Serve, train and look into progressive networks across edge and cloud."""


def main() -> None:
    """Run the `xpi` console script."""
    app(prog_name="xpi")
