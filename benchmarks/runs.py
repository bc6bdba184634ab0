"""Opens trained networks for the benchmarks that judge trainings.

    runs of the ablation, runs of `xpi train` ─► chosen ─► Run ─► kept(measure) ─► rows

What was measured of a run is kept in its folder, so that a benchmark that was cut short goes on.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import Progress
from torch import Tensor, nn

from benchmarks.result import Rows, write
from benchmarks.training_ablation import DATASET, NETWORK, OUTPUT, TRAININGS, finished, new_network
from xpi_ray.bundle import Bundle
from xpi_ray.networks.reference import build_reference
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.profiles.measure import Track
from xpi_ray.training.command import BUNDLE
from xpi_ray.training.data import Split, load
from xpi_ray.training.losses import Manipulation
from xpi_ray.training.networks import weights_digest
from xpi_ray.training.objectives import CrossEntropy
from xpi_ray.training.quantization import CarryQuantization
from xpi_ray.training.references import fit_reference
from xpi_ray.training.stages import Staged
from xpi_ray.training.trainer import CHECKPOINT, read_checkpoint

data = cache(load)


class Run(NamedTuple):
    """One finished training."""

    folder: Path
    dataset: str
    network_name: str
    training: str
    seed: int
    network: XpiNetwork
    """In eval mode, norms not folded."""
    objective: Staged | None
    """With the references and centres that it was trained with; None after joint training."""

    @property
    def key(self) -> dict[str, str | int]:
        """What begins each of its rows."""
        return {
            "dataset": self.dataset,
            "network": self.network_name,
            "training": self.training,
            "seed": self.seed,
        }

    @property
    def digest(self) -> str:
        """Tells its weights from all others."""
        return weights_digest(self.network)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let the caller choose runs."""
    parser.add_argument("--runs", type=Path, default=OUTPUT, help="folder of the ablation")
    parser.add_argument(
        "--trainings",
        nargs="*",
        choices=TRAININGS,
        default=list(TRAININGS),
        help="of the ablation; those with no finished run are left out",
    )
    parser.add_argument(
        "--run",
        dest="full",
        action="append",
        default=[],
        metavar="TRAINING=FOLDER",
        help="a run of `xpi train`, with its bundle; may be given more than once",
    )
    parser.add_argument("--images", type=int, default=2_000, help="of the test split")


def measure_all(
    name: str,
    arguments: argparse.Namespace,
    settings: Mapping[str, object],
    measure: Callable[[Run, Split, Track], Rows],
) -> Path:
    """Measure the chosen runs that are not measured yet, and write the result of all.

    Args:
        name: Of the benchmark.
        arguments: See ``add_arguments``.
        settings: All that the rows depend on beside runs and images.
        measure: A run and test images to rows, without the run's key.
    """
    settings = {"images": arguments.images, **settings}
    rows: Rows = []
    with Progress() as progress:

        def track(items: Iterable[int], description: str) -> Iterable[int]:
            return progress.track(items, description=description)

        for run in chosen(arguments):
            test = sample(data(run.dataset).test, arguments.images)
            rows += kept(run, name, settings, partial(measure, run, test, track))
    return write(name, settings, rows)


def chosen(arguments: argparse.Namespace) -> list[Run]:
    """Open the runs that the arguments name; says which are left out as they are not finished."""
    runs = [
        open_ablation(folder, training, seed, saved)
        for training in arguments.trainings
        for seed, folder, saved in finished(arguments.runs, training)
    ]
    for named in arguments.full:
        training, _, folder = named.partition("=")
        runs.append(open_full(Path(folder), training))
    return runs


def open_ablation(folder: Path, training: str, seed: int, saved: Mapping[str, Any]) -> Run:
    """One finished run of the ablation."""
    network = new_network(training, data(DATASET))
    network.load_state_dict(saved["network"])
    objective = _objective(network, saved["objective"])
    return Run(folder, DATASET, NETWORK, training, seed, network.eval(), objective)


def open_full(folder: Path, training: str) -> Run:
    """One run of `xpi train`: its bundle, and the references of its checkpoint.

    References are left out where a fine-tune or an average changed the network after them.
    """
    bundle = Bundle.load(folder / BUNDLE)
    saved = read_checkpoint(folder / CHECKPOINT)
    network = bundle.network
    assert isinstance(network, XpiNetwork)
    name, seed = f"{network.kind}{network.num_blocks}", saved["config"]["seed"]
    state = dict(saved["objective"])
    state |= {f"quantization._centres.{key}.values": own for key, own in bundle.centres.items()}
    if not _same(network.state_dict(), saved["network"]):
        state = {key: own for key, own in state.items() if not key.startswith("references.")}
    objective = _objective(network, state)
    return Run(folder, bundle.manifest.name, name, training, seed, network.eval(), objective)


def _same(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Whether weights are the same but for rounding to 16 bits."""
    return all(torch.allclose(own, others[name], 1e-3, 1e-4) for name, own in weights.items())


def kept(run: Run, name: str, settings: Mapping[str, object], measure: Callable[[], Rows]) -> Rows:
    """The rows that ``measure`` returns, or returned for these weights and settings before.

    Args:
        run: What is measured; rows get its key.
        name: Of the benchmark, and of the file in the run's folder.
        settings: All else that the rows depend on.
        measure: Called if need be.
    """
    path = run.folder / f"{name}.json"
    basis = {**settings, **run.key, "weights": run.digest}
    if path.is_file():
        found = json.loads(path.read_text())
        if found["basis"] == basis:
            rows: Rows = found["rows"]
            return rows
    rows = [{**run.key, **row} for row in measure()]
    path.write_text(json.dumps({"basis": basis, "rows": rows}) + "\n")
    return rows


def sample(split: Split, count: int) -> Split:
    """Always the same images of a split whose order may be by class."""
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))[:count]
    return split._replace(images=split.images[order], labels=split.labels[order])


def fitted_reference(network: XpiNetwork, block: int, train: Split, steps: int) -> nn.Module:
    """A compact reference network for a block, the same beginning and batches for all networks."""
    torch.manual_seed(block)
    _, height, width = network.carry_shape(block)
    channels = network.block(block).spec.channels
    reference = build_reference("compact", channels, (height, width), network.num_classes)
    generator = torch.Generator().manual_seed(block)
    fit_reference(reference, network, block, train, generator, steps)
    return reference


def _objective(network: XpiNetwork, state: Mapping[str, Tensor]) -> Staged | None:
    """What the state is of: a front-to-back objective with or without references and centres."""
    if not state:
        return None
    parts = {name.partition(".")[0] for name in state}
    objective = Staged(
        network,
        CrossEntropy(),
        manipulation=Manipulation() if "references" in parts else None,
        quantization=CarryQuantization(network.num_blocks) if "quantization" in parts else None,
    )
    objective.load_state_dict(state)
    return objective.eval()
