"""The whole comparison of Xpi with its peers: makes what is missing, runs all, tells it.

    python -m benchmarks.comparison [--short] [--list]

    xpi train ─► benchmarks.peers, ablated ─► xpi train-edgeml ─► figure4 … cable_pull ─► report

Every step is a command that can be called by itself, and goes on where it was stopped; ``--list``
prints them. Needs root and the shared traces. ``--short`` runs the small comparison only, once
bundles are there.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from benchmarks.ablated import MADE as ABLATED
from benchmarks.peers import ARCHITECTURES
from benchmarks.peers import MADE as PEERS
from benchmarks.systems import BUNDLES, DATASETS, EDGEML_POLICY, without
from xpi_ray.bundle import SUMS

XPI = str(Path(sys.executable).parent / "xpi")
TRAININGS = {
    "cifar10": (
        ("--epochs", "24", "--bfloat16"),
        ("--epochs", "24", "--bfloat16", "--peak-learning-rate", "0.1"),
    ),
    "tiny_imagenet": (("--epochs", "3"),),
}
"""Of peers' networks, one after the other, about as long as Xpi's own."""
RUNS = ("figure4", "capacity", "ablation", "cable_pull", "handle_calls", "figure4_simulated")


class Step(NamedTuple):
    """A command."""

    words: tuple[str, ...]
    made: tuple[Path, ...] = ()
    """What it makes; where all is there it is left out. Without any it is always run."""

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do."""
        return bool(self.made) and all(path.is_file() for path in self.made)


def main() -> int:
    """Run the steps in order; the exit code is that of the first that fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="the small comparison")
    parser.add_argument("--list", action="store_true", help="print the commands")
    options = parser.parse_args()
    console = Console(stderr=True)
    for step in steps(options.short):
        if options.list:
            print(shlex.join(step.words), *(["# is there"] if step.is_done else []))
        elif not step.is_done:
            console.rule(shlex.join(step.words))
            if code := subprocess.run(step.words, check=False).returncode:
                return code
    return 0


def steps(short: bool = False) -> Iterator[Step]:
    """All of them, in order."""
    for dataset in DATASETS:
        yield from _trained(dataset)
        bundles = tuple(BUNDLES / dataset / name / SUMS for name in PEERS)
        yield _module("peers", "--datasets", dataset, made=bundles)
        policy = BUNDLES / dataset / EDGEML_POLICY
        bundle = str(BUNDLES / dataset / "edgeml")
        train = (XPI, "train-edgeml", str(policy.parent), "--bundle", bundle)
        yield Step(train, (policy,))
        made = tuple(without(part, dataset).folder / SUMS for part in ABLATED)
        yield _module("ablated", "--datasets", dataset, made=made)
    small = ("--short",) if short else ()
    for name in ("figure4", "figure4_simulated") if short else RUNS:
        yield _module(name, *small)
    if not short:
        yield _module("testbed", "--measure")
        yield _module("tables")
    yield _module("report", *small)


def _trained(dataset: str) -> Iterator[Step]:
    """Networks of peers, each training from where the last one ended."""
    for kind, architectures in ARCHITECTURES.items():
        before: tuple[str, ...] = ()
        trainings = TRAININGS[dataset]
        for number, options in enumerate(trainings, 1):
            rest = "" if number == len(trainings) else f"-{number}"
            folder = BUNDLES / f"{dataset}-{kind}{rest}"
            words = ("--architecture", architectures[dataset], "--output", str(folder))
            command = (XPI, "train", dataset, *words, *options, *before, "--resume")
            yield Step(command, (folder / "bundle" / SUMS,))
            before = ("--start-from", str(folder / "bundle"))


def _module(name: str, *words: str, made: tuple[Path, ...] = ()) -> Step:
    return Step((sys.executable, "-m", f"benchmarks.{name}", *words), made)


if __name__ == "__main__":
    sys.exit(main())
