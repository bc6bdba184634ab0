"""What networks have in common that are built of extractors in a row, by a spec.

images ─► normalised ─► extractor 1 ─► features ─► … ─► extractor N ─► features
                                          └─► what a kind of network makes of them
"""

from collections.abc import Iterator
from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from xpi_ray.config import Frozen
from xpi_ray.networks.block import Extractor, ExtractorSpec, FoldableConv
from xpi_ray.networks.progressive import ProgressiveNetwork

IMAGE_CHANNELS = 3


class StackSpec(Frozen):
    """All that fixes a network but its kind and its weights."""

    num_classes: int = Field(ge=2)
    image_size: tuple[int, int]
    """Height and width."""
    mean: tuple[float, float, float]
    """Mean of each colour over the training images, pixels scaled to 0..1."""
    std: tuple[float, float, float]
    """Standard deviation of each colour, likewise."""
    blocks: tuple[ExtractorSpec, ...] = Field(min_length=1)


class StackNetwork(ProgressiveNetwork):
    """A stack of blocks, each of which has an ``extractor``."""

    kind: ClassVar[str]
    """What a bundle's manifest calls this kind of network."""
    spec: StackSpec
    blocks: nn.ModuleList
    mean: Tensor
    std: Tensor

    def __init__(self, spec: StackSpec) -> None:
        super().__init__()
        self.spec = spec
        self.num_classes = spec.num_classes
        self.image_size = spec.image_size
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(1, -1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(spec.std).view(1, -1, 1, 1))

    def _extractors(self) -> Iterator[nn.Module]:
        """One for each block of the spec, in order."""
        channels = IMAGE_CHANNELS
        for block in self.spec.blocks:
            yield Extractor(channels, block)
            channels = block.carried

    @property
    def num_blocks(self) -> int:
        """N."""
        return len(self.spec.blocks)

    def carry_shape(self, partition: int) -> tuple[int, int, int]:
        """(C-k, h, w) after block ``partition``; (3, H, W) for 0."""
        if partition == 0:
            return IMAGE_CHANNELS, *self.image_size
        height, width = self._extracted_size()
        for block in self.spec.blocks[:partition]:
            height, width = -(-height // block.stride), -(-width // block.stride)
        return block.carried, height, width

    def _extracted_size(self) -> tuple[int, int]:
        """Height and width of what block 1's strides begin with."""
        return self.image_size

    def features(self, carry: Tensor, block: int) -> Tensor:
        """What block ``block`` extracts from the carry before it, (n, C, h, w)."""
        if block == 1:
            carry = (carry - self.mean) / self.std
            carry = carry.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.extractor(block)(carry)
        return features

    def extractor(self, block: int) -> nn.Module:
        """That of block ``block``, 1..N."""
        extractor = self.blocks[block - 1].extractor
        assert isinstance(extractor, nn.Module)
        return extractor

    def pretrained(self) -> list[nn.Module]:
        """Parts with weights from elsewhere, which a training should change slowly; here none."""
        return []

    def thaw(self) -> None:
        """Make all blocks trainable again, after a training that froze them in turn."""
        self.requires_grad_(True)

    def prepare(self) -> Self:
        """Make the network ready to serve, in place: norms folded, channels last."""
        super().prepare()
        for module in self.modules():
            if isinstance(module, FoldableConv):
                module.fold()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self
