"""What each exit of an Xpi network saw in one image.

    pixels ─► explain_image ─┬─ last answer, in the pixels ─► importance (H,W)
                             └─ block i's features ─┬─ answer i ─► where its branch looked (H,W)
                                                    └─ last answer ─► share of the first k channels

Every attribution is Captum's integral of gradients of a log-probability: Sundararajan et al.,
"Axiomatic Attribution for Deep Networks" (ICML'17). The share of the first k channels is what
AgileNN (MobiCom'22, section 3.1) calls skewness; the rest of the network itself is the reference.
"""

from typing import NamedTuple

import numpy as np
import torch
from captum.attr import IntegratedGradients
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.exits.confidence import exit_entropy
from xpi_ray.explain.importance import channel_shares, skewness
from xpi_ray.networks.progressive import State
from xpi_ray.networks.xpi import XpiNetwork

GRADIENTS_AT_ONCE = 50  # bounds memory, however many steps are asked for

Map = NDArray[np.float32]
"""How much each place counts, 0 or more."""


class Sight(NamedTuple):
    """What one exit answered, and what it saw."""

    exit: int
    """1..N."""
    label: int
    """Index of the class that it answered."""
    probability: float
    """Of that class, 0..1."""
    entropy: float
    """Normalised, 0..1."""
    where: Map
    """How much each place of the branch's channels counts for this answer, scaled to (H, W)."""
    branch_channels: int
    """k."""
    channels: int
    """C."""
    branch_share: float
    """What the first k channels hold of the importance for the last exit's answer, 0..1."""


class Explanation(NamedTuple):
    """What a network saw in one image."""

    pixels: NDArray[np.uint8]
    """(3, H, W)."""
    importance: Map
    """How much each pixel counts for the last exit's answer, (H, W)."""
    sights: tuple[Sight, ...]
    """Of exits 1..N."""


class Onward(nn.Module):
    """The network from one block's features on, with the exits before that block as they came out.

    Args:
        network: In eval mode.
        block: Whose features come in, 1..N.
        earlier: Logits of the exit before it, (1, K), or (1, 0) for block 1.
        last: The exit to go on to, ``block``..N.
    """

    def __init__(self, network: XpiNetwork, block: int, earlier: Tensor, last: int) -> None:
        super().__init__()
        self.network = network
        self.first, self.last = block, last
        self.earlier = earlier

    def leave(self, features: Tensor) -> State:
        """The state after the first block, from its features (n, C, h, w)."""
        earlier = self.earlier.expand(len(features), -1)
        return self.network.leave(features, earlier, self.first)

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, C, h, w) to the last exit's log-probabilities (n, K)."""
        state = self.leave(features)
        for block in range(self.first + 1, self.last + 1):
            state = self.network.advance(state, block)
        return state.logits.log_softmax(dim=1)


class FromPixels(nn.Module):
    """The whole network, from pixels as float32 0..255 to the last exit's log-probabilities."""

    def __init__(self, network: XpiNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) to (n, K)."""
        exits: list[Tensor] = self.network(pixels)
        return exits[-1].log_softmax(dim=1)


def explain_image(network: XpiNetwork, pixels: NDArray[np.uint8], steps: int = 50) -> Explanation:
    """Attribute every exit's answer to what it was made of.

    Baselines, which tell nothing: for pixels the mean colour, for features zeros.

    Args:
        network: In eval mode; prepared or not.
        pixels: (3, H, W), of the network's size.
        steps: Gradients along each integral, 1 or more; 20 to 100 are usual.
    """
    image = torch.from_numpy(pixels)[None].float()
    answer = int(FromPixels(network)(image).argmax())
    state, sights = network.start(image), []
    for block in range(1, network.num_blocks + 1):
        features = network.features(state.carry, block).detach()
        sights.append(_look(network, block, features, state.logits, answer, steps))
        after = network.advance(state, block)
        state = State(after.carry.detach(), after.logits.detach())
    values = attribute(FromPixels(network), image, answer, steps, network.mean.expand_as(image))
    return Explanation(pixels, values.abs().sum(dim=1)[0].numpy(), tuple(sights))


def _look(
    network: XpiNetwork, block: int, features: Tensor, earlier: Tensor, answer: int, steps: int
) -> Sight:
    """What exit ``block`` saw in its block's features (1, C, h, w)."""
    exit_ = Onward(network, block, earlier, block)
    logits = exit_.leave(features).logits[0].detach()
    label = int(logits.argmax())
    spec = network.block(block).spec
    k = spec.branch_channels
    seen = attribute(exit_, features, label, steps)[:, :k].abs().sum(dim=1, keepdim=True)
    counting = attribute(
        Onward(network, block, earlier, network.num_blocks), features, answer, steps
    )
    return Sight(
        exit=block,
        label=label,
        probability=float(logits.softmax(dim=0)[label]),
        entropy=exit_entropy(logits.numpy()),
        where=F.interpolate(seen, network.image_size, mode="bilinear")[0, 0].numpy(),
        branch_channels=k,
        channels=spec.channels,
        branch_share=float(skewness(channel_shares(counting), k)),
    )


def attribute(
    forward: nn.Module, inputs: Tensor, label: int, steps: int, baseline: Tensor | None = None
) -> Tensor:
    """Captum's integrated gradients of one label's log-probability, of the shape of the inputs.

    Args:
        forward: Inputs to log-probabilities (n, K).
        inputs: (1, C, h, w).
        label: The class whose log-probability is explained.
        steps: Gradients along the path.
        baseline: Where the path begins, (1, C, h, w); zeros if not given.
    """
    oracle = IntegratedGradients(forward)
    values: Tensor = oracle.attribute(
        inputs, baseline, target=label, n_steps=steps, internal_batch_size=GRADIENTS_AT_ONCE
    )
    return values.detach().float()
