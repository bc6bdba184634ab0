"""What does each part of the training buy, on the same network, data, epochs and seeds?

    python -m benchmarks.training_ablation [--trainings NAME ...] [--seeds 0 1 2] [--output FOLDER]

Writes ``benchmarks/results/training_ablation.json``, the test accuracy of every exit, and makes the
tables and plots anew. A run that is in the output folder already is not trained again, and one that
was cut short goes on. All finished runs there are in the result, also those not named this time.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from benchmarks import plots, tables
from benchmarks.result import Rows, write
from benchmarks.summary import PLAIN, XAI
from xpi_ray.networks.block import BlockSpec
from xpi_ray.networks.xpi import XpiNetwork, XpiSpec
from xpi_ray.profiles.measure import count_macs
from xpi_ray.training.data import Splits, load, take
from xpi_ray.training.recipes import RECIPES, Recipe
from xpi_ray.training.trainer import (
    CHECKPOINT,
    Trainer,
    TrainingConfig,
    exit_accuracies,
    read_checkpoint,
    read_weights,
)

DATASET, NETWORK = "cifar10", "small12"
OUTPUT = Path("runs/ablation")
IMAGES, SEEDS = 10_000, (0, 1, 2)
BASE_EPOCHS, EPOCHS, PEAK_LEARNING_RATE = 10, 12, 0.1
REFERENCE_STEPS = 80
BRANCH_SHARE = 0.2  # k / C


def with_manipulation(recipe: Recipe, **changes: float) -> Recipe:
    """The recipe with another manipulation, if it has any."""
    if recipe.manipulation is None:
        return recipe
    changed = recipe.manipulation.model_copy(update=changes)
    return recipe.model_copy(update={"manipulation": changed})


SHARES = {f"{name}_k_{100 * share:.0f}": share for name in (PLAIN, XAI) for share in (0.1, 0.3)}
TRAININGS: dict[str, Recipe] = {
    **{name: recipe for name, recipe in RECIPES.items() if not recipe.quantized},
    **{
        f"{XAI}_rho_{rho}": with_manipulation(RECIPES[XAI], target_skewness=rho)
        for rho in (0.7, 0.9)
    },
    **{name: RECIPES[name.partition("_k_")[0]] for name in SHARES},
}


def small12(splits: Splits, branch_share: float = BRANCH_SHARE) -> XpiSpec:
    """The small configuration: xpi12's twelve blocks, narrower.

    Args:
        splits: Its classes and images.
        branch_share: k / C.
    """

    def block(channels: int, widths: tuple[int, ...], stride: int = 1, stem: int = 0) -> BlockSpec:
        return BlockSpec(
            channels=channels,
            branch_channels=round(branch_share * channels),
            branch_widths=widths,
            stride=stride,
            stem_channels=stem,
        )

    early, late = block(20, (16,)), block(30, (16,))
    return XpiSpec(
        num_classes=len(splits.classes),
        image_size=(splits.train.images.shape[2], splits.train.images.shape[3]),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        blocks=(
            block(20, (16,), 2, 8),
            *[early] * 2,
            block(30, (16,), 2),
            *[late] * 7,
            BlockSpec(channels=30, branch_channels=30),
        ),
    )


def new_network(name: str, splits: Splits) -> XpiNetwork:
    """The network that a training begins with."""
    return XpiNetwork(small12(splits, SHARES.get(name, BRANCH_SHARE)))


def train_base(name: str, splits: Splits, seed: int, output: Path) -> Path:
    """Train what a training starts from, plainly; all with the same k / C share it."""
    base = f"base_k_{100 * SHARES.get(name, BRANCH_SHARE):.0f}"
    config = TrainingConfig(epochs=BASE_EPOCHS, seed=seed)
    folder = output / base / str(seed)
    torch.manual_seed(seed)
    _run(new_network(name, splits), RECIPES[PLAIN], config, folder, splits)
    return folder


def train(name: str, splits: Splits, seed: int, epochs: int, output: Path) -> None:
    """Train one network on from its base, or go on with it, unless it is done."""
    base = train_base(name, splits, seed, output)
    torch.manual_seed(seed)
    network = new_network(name, splits)
    network.load_state_dict(read_weights(base))
    config = TrainingConfig(epochs=epochs, peak_learning_rate=PEAK_LEARNING_RATE, seed=seed)
    _run(network, TRAININGS[name], config, output / name / str(seed), splits)


def _run(
    network: XpiNetwork, recipe: Recipe, config: TrainingConfig, folder: Path, splits: Splits
) -> None:
    """Train from the folder's checkpoint on, if it is of the same recipe and images."""
    recipe = with_manipulation(recipe, reference_steps=REFERENCE_STEPS)
    purpose = f"{len(splits.train.labels)} images, {recipe.model_dump_json(exclude_defaults=True)}"
    trainer = Trainer(
        network,
        recipe.objective(network),
        config.model_copy(update={"purpose": purpose}),
        folder,
        turns=recipe.turns(network, config.epochs, trained=True),
    )
    trainer.resume()
    trainer.run(splits.train, splits.validation)


def finished(output: Path, name: str) -> Iterator[tuple[int, Path, dict[str, Any]]]:
    """Every finished run of a training in the folder: seed, folder and checkpoint."""
    for path in sorted((output / name).glob(f"*/{CHECKPOINT}")):
        saved = read_checkpoint(path)
        if saved["epoch"] < saved["config"]["epochs"]:
            print(f"{path.parent} is not finished; it is left out")
        else:
            yield int(path.parent.name), path.parent, saved


def judge(name: str, seed: int, network: XpiNetwork, splits: Splits) -> Rows:
    """Test accuracy and cost of every exit."""
    macs = count_macs(network.eval())
    return [
        {
            "dataset": splits.name,
            "training": name,
            "seed": seed,
            "exit": number,
            "accuracy": round(accuracy, 4),
            "cumulative_macs": macs[number - 1],
        }
        for number, accuracy in enumerate(exit_accuracies(network, splits.test), start=1)
    ]


def main() -> None:
    """Train what is missing, judge all on the test split, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainings", nargs="*", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--images", type=int, default=IMAGES, help="of the training split")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    splits = load(DATASET)
    splits = splits._replace(train=take(splits.train, arguments.images))
    rows: Rows = []
    with Progress() as progress:
        jobs = [(name, seed) for seed in arguments.seeds for name in arguments.trainings]
        for name, seed in progress.track(jobs, description="trainings"):
            train(name, splits, seed, arguments.epochs, arguments.output)
        for name in progress.track(TRAININGS, description="test split"):
            for seed, _, saved in finished(arguments.output, name):
                network = new_network(name, splits)
                network.load_state_dict(saved["network"])
                rows += judge(name, seed, network, splits)
    settings = {"images": arguments.images, "epochs": arguments.epochs, "network": NETWORK}
    print(write("training_ablation", settings, rows))
    tables.main()
    plots.main()


if __name__ == "__main__":
    main()
