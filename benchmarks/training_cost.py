"""What does a step of explainable-AI training cost, relative to plain training?

    python -m benchmarks.training_cost [--repeats 3] [--steps 3]

Steps of xpi12 on batches of 128 (forward, losses, backward, update; without augmentation), the
trainings in turn within each repeat. Where blocks take turns, a step is timed at every front block,
and ``step_ms`` is their mean, weighted by the lengths of their turns; epochs before the first turn
cost what plain training's do and are left out. ``ready_s`` makes a block ready to have its
importance moved: its reference network is fitted and its channels are ranked. It is timed for three
blocks by integrated gradients, and their mean counts for all trainings that need it. An epoch is
45,000 images of 24 epochs, over which it is spread evenly for all blocks but the last.

Writes ``benchmarks/results/training_cost.json``.
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import torch
from rich.progress import Progress

from benchmarks.result import Rows, write
from xpi_ray.networks.architectures import xpi12
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.data import Splits, load
from xpi_ray.training.losses import Manipulation
from xpi_ray.training.networks import colour_statistics
from xpi_ray.training.recipes import RECIPES, Recipe
from xpi_ray.training.stages import Staged
from xpi_ray.training.trainer import Trainer, TrainingConfig

SIDES = {
    "plain_joint": RECIPES["plain_joint"],
    "front_to_back": RECIPES["front_to_back"],
    "xai": RECIPES["xai"],
    "xai_second_order": Recipe(front_to_back=True, manipulation=Manipulation(second_order=True)),
    "xai_saliency": RECIPES["xai_saliency"],
    "xai_joint": RECIPES["xai_joint"],
}
EPOCH_IMAGES = 45_000
READY = (1, 6, 11)  # blocks that are made ready and timed
LEARNING_RATE = 1e-3  # low, so that weights do not run away, which could change the time
CONFIG = TrainingConfig()


class Side:
    """One training of a network, at any front block."""

    def __init__(self, recipe: Recipe, splits: Splits) -> None:
        images = splits.train.images
        size = (images.shape[2], images.shape[3])
        torch.manual_seed(0)
        self.train = splits.train
        self.network = XpiNetwork(xpi12(len(splits.classes), size, *colour_statistics(images)))
        self.objective = recipe.objective(self.network)
        # The folder is never written to, as no epoch is run.
        self.optimizer = Trainer(self.network, self.objective, CONFIG, Path()).optimizer
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        self.manipulated = recipe.manipulation is not None
        ends = recipe.turns(self.network, CONFIG.epochs, trained=True)
        self.turns = {  # their lengths, in epochs, by front block; 0 is all together
            front: end - start for front, (start, end) in enumerate(pairwise((0.0, *ends)))
        }
        if len(self.turns) > 1:
            del self.turns[0]  # without length

    def ready_s(self) -> float:
        """Seconds to make a block ready."""
        times_s = []
        for front in READY:
            started = time.perf_counter()
            self.objective.begin(self.network, front, self.train, seed=0, progress=0.0)
            times_s.append(time.perf_counter() - started)
        return fmean(times_s)

    def step_ms(self, steps: int, advance: Callable[[], None]) -> float:
        """Milliseconds of a step, the mean over the turns of the median of ``steps``."""
        total = 0.0
        for front, length in self.turns.items():
            self._bring_to_front(front)
            times_ms = [self._time_ms(step) for step in range(steps + 1)]
            total += length * median(times_ms[1:])  # the first warms up
            advance()
        return total / sum(self.turns.values())

    def _bring_to_front(self, front: int) -> None:
        """As the trainer does, without what the objective does to begin."""
        if isinstance(self.objective, Staged):
            self.objective.front.fill_(front)
        self.network.train()
        self.objective.train()
        for number in range(1, self.network.num_blocks + 1):
            self.network.block(number).train(number >= front).requires_grad_(number >= front)

    def _time_ms(self, step: int) -> float:
        size = CONFIG.batch_size
        part = slice(step * size, (step + 1) * size)
        images, labels = self.train.images[part], self.train.labels[part]
        started = time.perf_counter()
        loss = self.objective(self.network, images, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return (time.perf_counter() - started) * 1000


def epoch_s(step_ms: float, ready_s: float, blocks: int) -> float:
    """Seconds of an epoch with its share of what makes all blocks but the last ready."""
    steps = EPOCH_IMAGES // CONFIG.batch_size
    return steps * step_ms / 1000 + (blocks - 1) * ready_s / CONFIG.epochs


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="of which the median counts")
    arguments = parser.parse_args()
    splits = load("cifar10")
    sides = {name: Side(recipe, splits) for name, recipe in SIDES.items()}
    rows: Rows = []
    with Progress() as progress:
        fronts = sum(len(side.turns) for side in sides.values())
        task = progress.add_task("fronts", total=arguments.repeats * fronts)
        for repeat in range(arguments.repeats):
            plain_s, ready_s = 0.0, sides["xai"].ready_s()
            for name, side in sides.items():
                own_s = ready_s if side.manipulated else 0.0
                step_ms = side.step_ms(arguments.steps, lambda: progress.advance(task))
                taken_s = epoch_s(step_ms, own_s, side.network.num_blocks)
                plain_s = plain_s or taken_s
                rows.append(
                    {
                        "side": name,
                        "repeat": repeat,
                        "step_ms": round(step_ms, 1),
                        "ready_s": round(own_s, 2),
                        "epoch_s": round(taken_s, 1),
                        "ratio": round(taken_s / plain_s, 3),
                    }
                )
    settings = {"network": "xpi12", "steps": arguments.steps, "config": CONFIG.model_dump()}
    settings |= {"epoch_images": EPOCH_IMAGES, "threads": torch.get_num_threads()}
    print(write("training_cost", settings, rows))


if __name__ == "__main__":
    main()
