"""Makes a block ready for its turn: a reference network that knows its features, and their order.

    block's features ─► fit_reference ─► rank_channels ─► map_channels

AgileNN (MobiCom'22), sections 3.1 and 3.2. There the reference is fine-tuned on images before its
stem is left out; here it is fitted to the features that it reads.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.explain.channels import ChannelRanking
from xpi_ray.networks.block import Extractor, XpiBlock
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.data import Split, Track, batches, silent
from xpi_ray.training.losses import Manipulation, counted_shares

REFERENCE_BATCH = 128
REFERENCE_LEARNING_RATE = 2e-3
RANKING_IMAGES = 1_024


@torch.no_grad()
def block_features(network: XpiNetwork, images: Tensor, block: int) -> Tensor:
    """What block ``block`` extracts from images, (n, C, h, w), without a graph."""
    state = network.start(images)
    for number in range(1, block):
        state = network.advance(state, number)
    return network.features(state.carry, block)


def fit_reference(
    reference: nn.Module,
    network: XpiNetwork,
    block: int,
    train: Split,
    generator: torch.Generator,
    steps: int,
    track: Track = silent,
) -> None:
    """Train a reference network on a block's features, in place, and freeze it.

    Args:
        reference: Features (n, C, h, w) to logits (n, K).
        network: Left as it is.
        block: Whose features.
        train: Images and labels; they are augmented.
        generator: Order and augmentation.
        steps: Batches.
        track: Shows progress over them.
    """
    reference.requires_grad_(True).train()
    network.eval()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=REFERENCE_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, REFERENCE_LEARNING_RATE, steps)
    endless = _passes(train, min(REFERENCE_BATCH, len(train.labels)), generator)
    for images, labels in track(islice(endless, steps), steps, f"reference of block {block}"):
        features = block_features(network, images, block)
        loss = F.cross_entropy(reference(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    reference.requires_grad_(False).eval()


def _passes(train: Split, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end."""
    while True:
        yield from batches(train, size, generator)


def rank_channels(
    manipulation: Manipulation,
    reference: nn.Module,
    network: XpiNetwork,
    block: int,
    train: Split,
    generator: torch.Generator,
) -> ChannelRanking:
    """Rank a block's channels over a sample of the training split; AgileNN, Algorithm 1."""
    ranking = ChannelRanking(network.block(block).spec.branch_channels)
    network.eval()
    count = min(RANKING_IMAGES, len(train.labels))
    chosen = torch.randperm(len(train.labels), generator=generator)[:count]
    for part in chosen.split(REFERENCE_BATCH):
        labels = train.labels[part]
        features = block_features(network, train.images[part], block)
        ranking.add(counted_shares(manipulation, reference, features, labels))
    return ranking


class Reordered(nn.Module):
    """A reference network that goes on to see channels in the order that it was fitted to."""

    order: Tensor

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("order", torch.arange(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, C, h, w) to logits (n, K)."""
        logits: Tensor = self.body(features[:, self.order])
        return logits


def can_map(block: XpiBlock) -> bool:
    """Whether a block's channels can change places.

    They cannot where they belong to a pretrained trunk, nor where the carry passes on an identity
    path, which channels cannot leave.
    """
    return isinstance(block.extractor, Extractor) and not block.extractor.residual


@torch.no_grad()
def map_channels(block: XpiBlock, reference: Reordered, chosen: Sequence[int]) -> None:
    """Bring channels to a block's first k places, in place; AgileNN, section 3.2.

    A chosen channel that is not there yet changes places with one there that was not chosen, by
    exchanging the extractor's filters. The reference network's answers stay the same; the branch
    and the blocks behind learn to read the new order in the block's turn.

    Args:
        block: Whose features change order.
        reference: Fitted to the present order.
        chosen: k channels.
    """
    k = block.spec.branch_channels
    coming = [channel for channel in chosen if channel >= k]
    going = [channel for channel in range(k) if channel not in chosen]
    order = torch.arange(block.spec.channels)
    order[going], order[coming] = order[coming], order[going]
    assert isinstance(block.extractor, Extractor)
    conv, norm = block.extractor.conv
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for tensor in (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.copy_(tensor[order])
    reference.order.copy_(order.argsort()[reference.order])
