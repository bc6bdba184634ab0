"""What training minimises: a function of a network and a batch, so that stages can swap it.

batch ─► objective(network, images, labels) ─► loss (scalar) ─► trainer
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from xpi_ray.networks.progressive import ProgressiveNetwork


class Objective(Protocol):
    """A loss that the trainer can minimise."""

    def __call__(self, network: ProgressiveNetwork, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar with a graph."""
        ...


class JointCrossEntropy:
    """Cross-entropy of every exit, weighted; all blocks are trained together.

    BranchyNet (ICPR'16), section III-B: L = Σ w_i · CE_i.
    """

    def __init__(self, exit_weights: Sequence[float]) -> None:
        total = sum(exit_weights)
        self.exit_weights = [weight / total for weight in exit_weights]

    def __call__(self, network: ProgressiveNetwork, images: Tensor, labels: Tensor) -> Tensor:
        """Run the network on the batch; images uint8 (n, 3, H, W), labels int64 (n,)."""
        losses = torch.stack([F.cross_entropy(exit_, labels) for exit_ in network(images)])
        return losses @ losses.new_tensor(self.exit_weights)


def rising_weights(num_exits: int, first: float) -> list[float]:
    """Weights that rise evenly from ``first`` at exit 1 to 1 at the last exit."""
    return torch.linspace(first, 1.0, num_exits).tolist()
