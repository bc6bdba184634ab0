"""The files of benchmarks/ as the commands that its README names."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = [path for path in sorted(FOLDER.glob("*.py")) if "\ndef main(" in path.read_text()]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_command_does_what_it_is_for(path):
    """Whatever has a main runs it when it is called by name."""
    last = ast.parse(path.read_text()).body[-1]
    assert isinstance(last, ast.If)
    assert ast.unparse(last.test) == "__name__ == '__main__'"
    assert "main()" in ast.unparse(last)
