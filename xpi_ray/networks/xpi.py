"""The Xpi network: any number of Xpi blocks in a row, behind the progressive contract."""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from xpi_ray.config import Frozen
from xpi_ray.networks.block import BlockSpec, Extractor, FoldableConv, XpiBlock
from xpi_ray.networks.progressive import ProgressiveNetwork, State

IMAGE_CHANNELS = 3


class XpiSpec(Frozen):
    """All that fixes an Xpi network but its weights."""

    num_classes: int = Field(ge=2)
    image_size: tuple[int, int]
    """Height and width."""
    mean: tuple[float, float, float]
    """Mean of each colour over the training images, pixels scaled to 0..1."""
    std: tuple[float, float, float]
    """Standard deviation of each colour, likewise."""
    blocks: tuple[BlockSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _only_the_last_block_may_end_the_carry(self) -> "XpiSpec":
        for number, (block, _) in enumerate(pairwise(self.blocks), start=1):
            if block.branch_channels == block.channels:
                raise ValueError(f"block {number} hands no channels to block {number + 1}")
        return self


class XpiNetwork(ProgressiveNetwork):
    """A stack of Xpi blocks."""

    kind: ClassVar[str] = "xpi"
    """What a bundle's manifest calls this kind of network."""
    mean: Tensor
    std: Tensor

    def __init__(self, spec: XpiSpec) -> None:
        super().__init__()
        self.spec = spec
        self.num_classes = spec.num_classes
        self.image_size = spec.image_size
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(1, -1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(spec.std).view(1, -1, 1, 1))
        self.blocks = nn.ModuleList(
            XpiBlock(extractor, block, spec.num_classes)
            for extractor, block in zip(self._extractors(), spec.blocks, strict=True)
        )

    def _extractors(self) -> Iterator[nn.Module]:
        """One for each block of the spec, in order."""
        channels = IMAGE_CHANNELS
        for block in self.spec.blocks:
            yield Extractor(channels, block)
            channels = block.channels - block.branch_channels

    @property
    def num_blocks(self) -> int:
        """N."""
        return len(self.blocks)

    def carry_shape(self, partition: int) -> tuple[int, int, int]:
        """(C-k, h, w) after block ``partition``; (3, H, W) for 0."""
        if partition == 0:
            return IMAGE_CHANNELS, *self.image_size
        height, width = self._extracted_size()
        for block in self.spec.blocks[:partition]:
            height, width = -(-height // block.stride), -(-width // block.stride)
        return block.channels - block.branch_channels, height, width

    def _extracted_size(self) -> tuple[int, int]:
        """Height and width of what block 1's strides begin with."""
        return self.image_size

    def advance(self, state: State, block: int) -> State:
        """Run block ``block`` (1..N) on the state that the block before it returned."""
        return self.leave(self.features(state.carry, block), state.logits, block)

    def features(self, carry: Tensor, block: int) -> Tensor:
        """What block ``block`` extracts from the carry before it, (n, C, h, w)."""
        if block == 1:
            carry = (carry - self.mean) / self.std
            carry = carry.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.block(block).extractor(carry)
        return features

    def leave(self, features: Tensor, earlier: Tensor, block: int) -> State:
        """From a block's features (n, C, h, w) and the exit before, (n, K), to its own state."""
        this = self.block(block)
        kept, carry = this.split(features)
        return State(carry, this.fuse(earlier, this.branch(kept)))

    def pretrained(self) -> list[nn.Module]:
        """Parts with weights from elsewhere, which a training should change slowly; here none."""
        return []

    def thaw(self) -> None:
        """Make all blocks trainable again, after a training that froze them in turn."""
        self.requires_grad_(True)

    def block(self, number: int) -> XpiBlock:
        """Block ``number``, 1..N."""
        block = self.blocks[number - 1]
        assert isinstance(block, XpiBlock)
        return block

    def prepare(self) -> Self:
        """Make the network ready to serve, in place: norms folded, channels last."""
        super().prepare()
        for module in self.modules():
            if isinstance(module, FoldableConv):
                module.fold()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self
