import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import typer
from typer.testing import CliRunner

import xpi_ray
from xpi_ray import cli

HELLO = '''
"""The module's own line."""
from xpi_ray.errors import BundleError

EXAMPLES = """
Examples:

  xpi hello Ada
"""

def hello(name: str, fail: bool = False) -> None:
    """Greet somebody.

    At length.
    """
    if fail:
        raise BundleError(f"{name} is damaged; get it anew")
    print(f"hello, {name}")

def interrupted() -> None:
    """Be stopped."""
    raise KeyboardInterrupt

def broken() -> None:
    """Have a fault."""
    raise ZeroDivisionError("a fault of ours")
'''

VERBS = '''
"""Look into boxes."""
import typer

box = typer.Typer()

@box.command()
def show() -> None:
    """Show a box."""
    print("a box")

@box.command()
def verify() -> None:
    """Check a box."""
    print("sound")
'''

COSTLY = '"""Never to be imported."""\nraise RuntimeError("imported")\n'


@pytest.fixture
def xpi(tmp_path, monkeypatch):
    """Run `xpi` with commands of our own."""
    modules = {"fake_hello": HELLO, "fake_box": VERBS, "fake_costly": COSTLY}
    for name, source in modules.items():
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    targets = {
        "hello": "fake_hello:hello",
        "interrupted": "fake_hello:interrupted",
        "broken": "fake_hello:broken",
        "box": "fake_box:box",
        "costly": "fake_costly:costly",
        "gone": "fake_gone.command:gone",
    }
    entries = [EntryPoint(name, value, cli.GROUP) for name, value in targets.items()]
    monkeypatch.setattr(cli, "entry_points", lambda group: entries)
    return lambda *args: CliRunner().invoke(cli.app, list(args), prog_name="xpi")


def test_the_list_has_every_command_and_imports_none(xpi):
    """`xpi --help` names each command with its docstring's first line, and runs none of them."""
    result = xpi("--help")
    assert result.exit_code == 0
    for line in ("Greet somebody.", "Look into boxes.", "Never to be imported.", "fake_gone"):
        assert line in result.stdout
    assert "At length" not in result.stdout
    assert not {"fake_hello", "fake_box", "fake_costly"} & set(sys.modules)


def test_a_command_runs_and_only_it_is_imported(xpi):
    """A function is a command with its own arguments."""
    result = xpi("hello", "Ada")
    assert (result.exit_code, result.stdout) == (0, "hello, Ada\n")
    assert "fake_box" not in sys.modules


def test_help_ends_with_examples(xpi):
    """A command's help holds its whole docstring and its module's examples."""
    output = xpi("hello", "--help").stdout
    assert "Usage: xpi hello" in output
    assert output.index("At length.") < output.index("xpi hello Ada")


def test_sub_verbs_keep_their_names(xpi):
    """A Typer is a group of verbs."""
    assert xpi("box", "show").stdout == "a box\n"
    assert xpi("box", "verify").stdout == "sound\n"
    assert "Check a box." in xpi("box", "--help").stdout


def test_an_error_of_ours_is_one_line(xpi):
    """An XpiError ends the program with 1 and one line on stderr."""
    result = xpi("hello", "model", "--fail")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "xpi: model is damaged; get it anew\n"


def test_an_interrupt_is_quiet(xpi):
    """Ctrl-C ends the program with 130 and no words."""
    result = xpi("interrupted")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "")


def test_a_fault_keeps_its_traceback(xpi):
    """Any other exception is a fault, and not hidden."""
    assert isinstance(xpi("broken").exception, ZeroDivisionError)


def test_an_unknown_command_is_a_usage_error(xpi):
    """A misspelt command ends with 2 and the nearest name."""
    result = xpi("hullo")
    assert result.exit_code == 2
    assert "hello" in result.stderr


def test_the_version_is_the_packages(xpi):
    """`xpi --version` prints the package's version."""
    assert xpi("--version").stdout == f"xpi {xpi_ray.__version__}\n"


def test_help_costs_no_heavy_import():
    """The program itself imports neither torch nor Ray, whatever is installed."""
    code = (
        "import sys\n"
        "from xpi_ray.cli import main\n"
        "sys.argv = ['xpi', '--help']\n"
        "try: main()\n"
        "except SystemExit as leave: assert leave.code == 0\n"
        "print(*{'torch', 'ray', 'numpy'} & set(sys.modules), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == ""
    assert "Usage: xpi" in ran.stdout


def test_a_command_is_a_typer_one(xpi):
    """The app can be mounted in another Typer program."""
    outer = typer.Typer()
    outer.add_typer(cli.app, name="xpi")
    assert CliRunner().invoke(outer, ["xpi", "hello", "Ada"]).stdout == "hello, Ada\n"
