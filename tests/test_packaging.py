import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"xpi_ray", "deployments", "rl"}
DECOYS = ("benchmarks", "tests", "rl_runs", "docs")  # discovery would ship these too
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])('dist')"


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build the project in a copy of its tree; returns the opened wheel of a kind."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in PACKAGES:
        shutil.copytree(
            ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree)
    for folder in DECOYS:
        (tree / folder).mkdir()
        (tree / folder / "__init__.py").touch()
    bundle = tree / "xpi_ray" / "bundles" / "pets"
    bundle.mkdir(parents=True)
    (bundle / "SHA256SUMS").touch()

    def build(hook):
        shutil.rmtree(tree / "dist", ignore_errors=True)
        (tree / "dist").mkdir()
        subprocess.run([sys.executable, "-c", BUILD, hook], cwd=tree, check=True)
        (wheel,) = (tree / "dist").glob("*.whl")
        return zipfile.ZipFile(wheel)

    return build


def test_a_wheel_holds_the_three_packages(build):
    """The wheel's top level is the three packages, with every module and their data."""
    with build("build_wheel") as wheel:
        files = set(wheel.namelist())
    top = {file.partition("/")[0] for file in files if ".dist-info/" not in file}
    assert top == PACKAGES
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert modules <= files
    assert {"xpi_ray/py.typed", "xpi_ray/bundles/pets/SHA256SUMS"} <= files
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("deployments/*.yaml")} <= files
    assert any(file.endswith("/licenses/LICENSE") for file in files)


def test_an_editable_install_maps_the_three_packages(build):
    """An editable install finds the three packages, and not what lies beside them."""
    with build("build_editable") as wheel:
        (finder,) = (file for file in wheel.namelist() if file.endswith("_finder.py"))
        source = wheel.read(finder).decode()
    mapping = re.search(r"^MAPPING[^=]*= (\{.*?\})$", source, re.MULTILINE)
    assert set(ast.literal_eval(mapping[1])) == PACKAGES


def test_every_command_is_there():
    """Each entry point of `xpi` names something that its module defines at the top."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for target in project["entry-points"]["xpi_ray.commands"].values():
        module, _, attribute = target.partition(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assigned = [node.targets for node in tree.body if isinstance(node, ast.Assign)]
        defined |= {ast.unparse(target) for targets in assigned for target in targets}
        assert attribute in defined, f"{target} is not there"
