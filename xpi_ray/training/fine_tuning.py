"""A joint fine-tune of all exits after front-to-back training, kept only if validation gains by it.

trained network ─► a few epochs of all blocks together ─► better on validation? ─► kept or undone
"""

import copy
from pathlib import Path
from statistics import fmean

from xpi_ray.networks.bundled import BundledNetwork
from xpi_ray.training.data import Splits, Track
from xpi_ray.training.objectives import Objective
from xpi_ray.training.trainer import Trainer, TrainingConfig

LEARNING_RATE_SHARE = 0.1  # of the training's peak, so that what the blocks learnt survives


def fine_tuned_if_better(
    network: BundledNetwork,
    objective: Objective,
    config: TrainingConfig,
    epochs: int,
    folder: Path,
    track: Track,
    splits: Splits,
    accuracies: list[float],
    resume: bool,
) -> list[float] | None:
    """Fine-tune, in place, and undo it unless the mean over the exits gains.

    Args:
        network: Trained.
        objective: Of all blocks together; not begun.
        config: Of the training before.
        epochs: Of the fine-tune.
        folder: For its checkpoint.
        track: Shows progress.
        splits: Train and validation are looked at.
        accuracies: The network's on validation, of every exit.
        resume: Whether to go on from the folder's checkpoint.

    Returns:
        The accuracies of the fine-tuned network; None if the fine-tune was undone.
    """
    before = copy.deepcopy(network.state_dict())
    network.thaw()
    peak = config.peak_learning_rate * LEARNING_RATE_SHARE
    config = config.model_copy(update={"epochs": epochs, "peak_learning_rate": peak})
    trainer = Trainer(network, objective, config, folder, track)
    if resume:
        trainer.resume()
    tuned = trainer.run(splits.train, splits.validation)
    if fmean(tuned) > fmean(accuracies):
        return tuned
    network.load_state_dict(before)
    return None
