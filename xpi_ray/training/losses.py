"""The losses that move importance into the channels that a branch reads.

    features, labels ─► reference ─► channel shares ─► skewness and disorder loss

AgileNN (MobiCom'22), sections 3.1 and 4.2.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from xpi_ray.config import Frozen
from xpi_ray.explain.importance import (
    Attributor,
    IntegratedGradients,
    Saliency,
    channel_shares,
    disorder,
    skewness,
)


class Manipulation(Frozen):
    """How hard, and by which measure, importance is moved."""

    target_skewness: float = Field(default=0.8, ge=0, le=1)
    """ρ; what the first k channels should hold of a sample's importance."""
    weight: float = Field(default=0.25, gt=0)
    """Of both losses beside the prediction loss, which has 1: (1 - λ) / λ in AgileNN's terms, so
    0.25 is λ = 0.8."""
    disorder_weight: float = Field(default=1.0, ge=0)
    """Of the disorder loss beside the skewness loss's 1."""
    attribution: Literal["integrated_gradients", "saliency"] = "integrated_gradients"
    steps: int = Field(default=1, ge=1)
    """m of integrated gradients."""
    second_order: bool = False
    """Whether integrated gradients are differentiated through the gradient too."""
    correct_only: bool = True
    """Whether only samples count that the reference network answers correctly."""
    map_channels: bool = True
    """Whether Algorithm 1 chooses the first k channels before a block's turn."""
    reference: str = "compact"
    """Name of the reference network; see ``networks.reference``."""
    reference_steps: int = Field(default=200, ge=1)
    """Batches that the reference network is fitted with."""
    reference_follows: bool = False
    """Whether the reference network goes on learning, a step a batch. A frozen one
    soon knows the features no more, and importance in it means little."""

    @model_validator(mode="after")
    def _only_constants_follow(self) -> "Manipulation":
        if self.reference_follows and (self.second_order or self.attribution == "saliency"):
            raise ValueError(
                "reference_follows needs first-order integrated gradients: other measures would "
                "train the reference to be skewed"
            )
        return self

    def attributor(self) -> Attributor:
        """The measure of importance."""
        if self.attribution == "saliency":
            return Saliency()
        return IntegratedGradients(self.steps, self.second_order)


def counted_shares(
    manipulation: Manipulation, reference: nn.Module, features: Tensor, labels: Tensor
) -> Tensor:
    """Each channel's share of importance, (m, C), of the m samples that count.

    Args:
        manipulation: Which measure.
        reference: In eval mode; features to logits.
        features: (n, C, h, w); the shares are differentiable in them.
        labels: int64 (n,).
    """
    values, logits = manipulation.attributor()(reference, features, labels)
    shares = channel_shares(values)
    return shares[logits.argmax(1) == labels] if manipulation.correct_only else shares


def manipulation_loss(manipulation: Manipulation, shares: Tensor, k: int) -> Tensor:
    """Mean of max(0, ρ - skewness) and of max(0, disorder), weighted; zero for no samples.

    AgileNN, section 3.1: L_skewness and L_disorder.

    Args:
        manipulation: ρ and the weights.
        shares: Each channel's share of importance, (m, C), of the samples that count.
        k: Channels that the branch reads.
    """
    if len(shares) == 0:
        return shares.sum()
    lacking = torch.relu(manipulation.target_skewness - skewness(shares, k)).mean()
    return lacking + manipulation.disorder_weight * torch.relu(disorder(shares, k)).mean()
