import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("xpi_ray", "deployments", "rl")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SOURCES = [
    *MODULES,
    *(path for top in ("tests", "benchmarks") for path in ROOT.glob(f"{top}/**/*.py")),
]
MAX_LINES = 400


def name(path):
    """Return a path as the reader of a report wants it."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_what_it_is(path):
    """Every module of the packages has a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_fits_on_a_few_screens(path):
    """No file has more than 400 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_every_folder_is_on_the_map():
    """ARCHITECTURE.md names every folder that is a package."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in MODULES if path.name == "__init__.py"}
    assert {folder for folder in folders if not re.search(rf"\b{folder}/", text)} == set()


@pytest.mark.parametrize("package", ["deployments", "rl"])
def test_a_package_imports_nothing_by_itself(package):
    """The packages outside the library hold only a docstring in ``__init__``."""
    (only,) = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8")).body
    assert isinstance(only, ast.Expr)


def test_tests_are_no_packages():
    """A package under tests would hide the one that it mirrors: ``import rl`` would find it."""
    assert not list((ROOT / "tests").rglob("__init__.py"))
