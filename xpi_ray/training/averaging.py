"""Averages the weights of two runs that share a beginning.

    weights of run A, weights of run B ─► mean ─► norms measured anew ─► kept if validation gains

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (UAI'18),
sections 3.2 and 3.3: ends of learning-rate cycles, averaged, then batch norms re-estimated.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.training.data import Split, Splits, batches
from xpi_ray.training.objectives import Objective
from xpi_ray.training.trainer import exit_accuracies

NORM_BATCHES = 60  # of augmented training images, for the statistics of the norms
BATCH_SIZE = 250


@torch.no_grad()
def average_into(network: ProgressiveNetwork, other: Mapping[str, Tensor], train: Split) -> None:
    """Make the network's weights the mean of its own and ``other``'s, in place.

    Args:
        network: Trained.
        other: Weights of the same network, from a run that began like this one.
        train: What the norms' statistics are measured on.
    """
    for name, own in network.state_dict().items():
        if own.is_floating_point():
            own.add_(other[name]).div_(2)
    network.train()
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d) and module.training  # a frozen trunk's are not
    ]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
    size = min(BATCH_SIZE, len(train.labels))
    for step, (images, _) in enumerate(batches(train, size, torch.Generator().manual_seed(0))):
        if step == NORM_BATCHES:
            break
        network(images)
    network.eval()


def averaged_if_better(
    network: ProgressiveNetwork,
    objective: Objective,
    other: Mapping[str, Tensor],
    splits: Splits,
    accuracies: list[float],
) -> list[float] | None:
    """Average, in place, and undo it unless the last exit gains.

    Args:
        network: Trained.
        objective: Of all blocks together, not begun; it begins with the average if that is kept, so
            that its centres fit the new carries.
        other: Weights of the same network, from a run that began like this one.
        splits: Train and validation are looked at.
        accuracies: The network's on validation, of every exit.

    Returns:
        The accuracies of the average; None if it was undone.
    """
    before = copy.deepcopy(network.state_dict())
    average_into(network, other, splits.train)
    averaged = exit_accuracies(network, splits.validation)
    if averaged[-1] > accuracies[-1]:
        objective.begin(network, 0, splits.train, 0, 0.0)
        return averaged
    network.load_state_dict(before)
    return None
