"""Trains the exits that were attached to a network which had learnt before without them.

attach_exits(model) ─► train_exits: branches alone, or with the backbone ─► pack ─► Bundle
"""

from pathlib import Path

import torch

from xpi_ray.errors import TrainingError
from xpi_ray.networks.branched import BranchedNetwork
from xpi_ray.training.data import Splits, Track, silent
from xpi_ray.training.objectives import Joint
from xpi_ray.training.recipes import Recipe
from xpi_ray.training.trainer import Trainer, TrainingConfig


def train_exits(
    network: BranchedNetwork,
    splits: Splits,
    recipe: Recipe,
    config: TrainingConfig,
    folder: Path,
    frozen: bool = False,
    track: Track = silent,
    resume: bool = False,
) -> list[float]:
    """Train branches, in place.

    Args:
        network: As ``attach_exits`` made it of a trained model.
        splits: Train and validation are looked at.
        recipe: For networks of any kind.
        config: Of the training.
        folder: Of the run.
        frozen: Whether the backbone stays as it is to the last bit, and with it the last exit; else
            it learns too, at a small share of the learning rate.
        track: Shows progress.
        resume: Whether to go on from the folder's checkpoint.

    Returns:
        The validation accuracy of every exit.

    Raises:
        TrainingError: There is nothing to train, or the recipe is for other networks.
        DataError: The checkpoint is another run's, or a batch needs more images than there are.
    """
    network.trained = True
    if frozen:
        if not network.branches:
            raise TrainingError("a frozen network with no exit but its own has nothing to learn")
        network.freeze()
    objective = recipe.objective(network)
    if frozen:  # branches share nothing, so none need wait for another
        objective = Joint(recipe.prediction(), torch.ones)
    trainer = Trainer(network, objective, config, folder, track)
    if resume:
        trainer.resume()
    return trainer.run(splits.train, splits.validation)
