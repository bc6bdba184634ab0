"""How much each feature counts for a reference network's answer, inside the training graph.

    features (n,C,h,w), labels ─► reference ─► gradients ─► Attribution ─► channel shares (n,C)

The output that is explained is the log-probability of the label, so its gradient is that of the
cross-entropy with the sign changed. Baselines are zeros.

AgileNN (MobiCom'22), sections 2.2 and 3.1; Sundararajan et al., "Axiomatic Attribution for Deep
Networks" (ICML'17), equations 1 and 3; Simonyan et al., "Deep Inside Convolutional Networks"
(2013), section 3. Captum is the oracle of the tests.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NOTHING = 1e-12  # a sample's whole importance at which shares are no longer told apart


class Attribution(NamedTuple):
    """What one batch's answers rest on."""

    values: Tensor
    """Of each feature, (n, C, h, w); differentiable in the features."""
    logits: Tensor
    """The reference network's own answers, (n, K), without a graph."""


class Attributor(Protocol):
    """A way to attribute an answer to features."""

    def __call__(self, reference: nn.Module, features: Tensor, labels: Tensor) -> Attribution:
        """Attribute the log-probability of each label to the features.

        Args:
            reference: Features (n, C, h, w) to logits (n, K); frozen, in eval mode.
            features: (n, C, h, w), with a graph where the attribution is to be differentiated.
            labels: int64 (n,).
        """
        ...


@dataclass(frozen=True)
class IntegratedGradients:
    """The features times the gradient's mean on the straight line from zeros to them.

    The mean is a trapezoid of ``steps`` intervals: gradients at k/steps for k = 0..steps, the two
    ends with half the weight. One interval is what AgileNN's code computes. The gradient at zeros
    depends on nothing but the label, so it is taken once for each label of the batch.
    """

    steps: int = 1
    """m, intervals, 1 or more; the cost is about m gradients of the batch."""
    second_order: bool = False
    """Whether the gradients themselves are differentiated too. Without it they count as constants,
    which costs about half and trains to the same skewness."""

    def __call__(self, reference: nn.Module, features: Tensor, labels: Tensor) -> Attribution:
        """Attribute; see the protocol."""
        shares = torch.arange(1, self.steps + 1, dtype=features.dtype, device=features.device)
        path = (shares / self.steps).view(-1, 1, 1, 1, 1) * features  # (m, n, C, h, w)
        gradients, logits = label_gradients(
            reference, path.flatten(0, 1), labels.repeat(self.steps), self.second_order
        )
        kinds, kind = labels.unique(return_inverse=True)
        zeros = torch.zeros_like(features[:1]).expand(len(kinds), -1, -1, -1)
        at_zeros, _ = label_gradients(reference, zeros, kinds, create_graph=False)
        along = torch.cat([at_zeros[kind].unsqueeze(0), gradients.view_as(path)])
        mean = torch.trapezoid(along, dx=1 / self.steps, dim=0)
        return Attribution(features * mean, logits.view(self.steps, len(labels), -1)[-1])


@dataclass(frozen=True)
class Saliency:
    """The gradient at the features. It is always differentiated: its values are the gradient."""

    def __call__(self, reference: nn.Module, features: Tensor, labels: Tensor) -> Attribution:
        """Attribute; see the protocol."""
        return Attribution(*label_gradients(reference, features, labels, create_graph=True))


def label_gradients(
    reference: nn.Module, features: Tensor, labels: Tensor, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Gradient of each label's log-probability in the features, and the logits without a graph.

    Args:
        reference: Features (n, C, h, w) to logits (n, K).
        features: (n, C, h, w).
        labels: int64 (n,).
        create_graph: Whether the gradient itself can be differentiated.
    """
    with torch.enable_grad():
        if not (create_graph and features.requires_grad):
            features = features.detach().requires_grad_()
        logits: Tensor = reference(features)
        score = -F.cross_entropy(logits, labels, reduction="sum")
        (gradients,) = torch.autograd.grad(score, features, create_graph=create_graph)
    return gradients, logits.detach()


def channel_shares(values: Tensor) -> Tensor:
    """Each channel's share of a sample's importance: (n, C, h, w) to (n, C), rows adding up to 1.

    Importance is the attribution's magnitude, summed over the channel (AgileNN, section 3.1).
    A sample of which nothing counts has shares of zero.
    """
    totals = values.abs().sum(dim=(2, 3))
    return totals / totals.sum(dim=1, keepdim=True).clamp_min(NOTHING)


def skewness(shares: Tensor, k: int) -> Tensor:
    """What the first k channels hold together, of each sample: (n, C) to (n,), 0..1."""
    return shares[:, :k].sum(dim=1)


def disorder(shares: Tensor, k: int) -> Tensor:
    """How far the best of the later channels leads the worst of the first k: (n, C) to (n,).

    AgileNN, section 3.1: max(I2) - min(I1). Above zero the sample violates the order; with k = C
    there are no later channels and the result is zero.
    """
    if k == shares.shape[1]:
        return shares.new_zeros(len(shares))
    return shares[:, k:].amax(dim=1) - shares[:, :k].amin(dim=1)


def misplaced(shares: Tensor, k: int) -> Tensor:
    """The share of the first k places that no top k channel has, of each sample: (n, C) to (n,)."""
    return (shares.topk(k, dim=1).indices >= k).to(shares.dtype).mean(dim=1)
