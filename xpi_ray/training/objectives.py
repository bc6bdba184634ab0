"""What training minimises: a function of a network and a batch, so that stages can swap it.

batch ─► objective(network, images, labels) ─► loss (scalar) ─► trainer

An objective says what runs and what counts; a prediction loss says how each exit is judged.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.training.data import Split

FIRST_EXIT_WEIGHT = 0.3  # of exit 1; the last has 1


class Prediction(Protocol):
    """How far answers are from what they should be."""

    def __call__(self, exits: Sequence[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return each exit's loss, (exits,), with a graph.

        Args:
            exits: Logits (n, K) of consecutive exits, ending with the network's last.
            images: uint8 (n, 3, H, W).
            labels: int64 (n,).
        """
        ...


class CrossEntropy:
    """The labels are right and nothing else."""

    def __call__(self, exits: Sequence[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each exit."""
        del images
        return torch.stack([F.cross_entropy(exit_, labels) for exit_ in exits])


def divergence(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Kullback and Leibler's, of softened answers from a teacher's, with the temperature's square.

    Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), section 2.

    Args:
        logits: That learn, (n, K).
        taught: That stay, (n, K).
        temperature: Softens both.
    """
    softened = F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(taught.detach() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * softened


class Distilled:
    """Exits learn from a teacher's answers as well as from the labels.

    The teacher is a network of its own, or the last exit (deep supervision), which then learns from
    the labels alone. Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), section
    2; Phuong and Lampert, "Distillation-Based Training for Multi-Exit Architectures" (ICCV'19).

    Args:
        teacher: Images, uint8 (n, 3, H, W), to logits (n, K), frozen; None is the last exit.
        share: Of the teacher in the loss, 0..1; the labels have the rest.
        temperature: Softens both answers; its square scales the teacher's part.
    """

    def __init__(
        self, teacher: nn.Module | None = None, share: float = 0.5, temperature: float = 3.0
    ) -> None:
        self.teacher = teacher
        self.share = share
        self.temperature = temperature

    def __call__(self, exits: Sequence[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return each exit's mixture of cross-entropy and divergence from the teacher."""
        losses = CrossEntropy()(exits, images, labels)
        with torch.no_grad():
            taught = exits[-1] if self.teacher is None else self.teacher(images)
        learning = len(exits) - (self.teacher is None)
        mixed = [
            (1 - self.share) * loss + self.share * divergence(exit_, taught, self.temperature)
            for exit_, loss in zip(exits[:learning], losses[:learning], strict=True)
        ]
        return torch.stack([*mixed, *losses[learning:]])


class Objective(nn.Module):
    """A loss that the trainer can minimise. Its state and parameters belong to the checkpoint."""

    def begin(
        self, network: ProgressiveNetwork, front: int, train: Split, seed: int, progress: float
    ) -> None:
        """Get ready for an epoch, or for another front block in the midst of one.

        Args:
            network: What is trained; may be left in eval mode.
            front: The block whose turn it is, 1..N, those before it frozen; 0 is all blocks' turn.
            train: The training split.
            seed: Of the epoch's random numbers.
            progress: The part of the training that is done, 0..1.
        """

    def trained(self) -> list[tuple[nn.Module, float]]:
        """What the trainer trains beside the network, with learning rates to the network's."""
        return []

    def centres(self) -> dict[str, Tensor]:
        """What was learnt to quantise carries with, for the bundle; most learn nothing of it."""
        return {}

    def forward(self, network: ProgressiveNetwork, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar with a graph; images uint8 (n, 3, H, W), labels int64 (n,)."""
        raise NotImplementedError


class Joint(Objective):
    """All exits at once, later ones weighted more.

    BranchyNet (ICPR'16), section III-B: L = Σ w_i · L_i.

    Args:
        prediction: Judges the exits.
        weights: From the number of exits to a weight for each, (exits,).
    """

    def __init__(
        self, prediction: Prediction, weights: Callable[[int], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.prediction = prediction
        self.weights = weights or rising_weights

    def forward(self, network: ProgressiveNetwork, images: Tensor, labels: Tensor) -> Tensor:
        """Run the whole network on the batch."""
        losses = self.prediction(network(images), images, labels)
        return losses @ self.weights(len(losses))


def rising_weights(count: int) -> Tensor:
    """Weights, (count,), that rise evenly to the last and add up to 1."""
    weights = torch.linspace(FIRST_EXIT_WEIGHT, 1.0, count)
    return weights / weights.sum()
