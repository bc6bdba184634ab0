"""What networks have in common that are built of extractors in a row, by a spec.

images ─► normalised ─► extractor 1 ─► features ─► … ─► extractor N ─► features
                                          └─► what a kind of network makes of them
"""

from collections.abc import Iterator

from pydantic import Field
from torch import Tensor, nn

from xpi_ray.networks.block import Extractor, ExtractorSpec
from xpi_ray.networks.bundled import IMAGE_CHANNELS, BundledNetwork, NetworkSpec


class StackSpec(NetworkSpec):
    """All that fixes a network but its kind and its weights."""

    blocks: tuple[ExtractorSpec, ...] = Field(min_length=1)


class StackNetwork(BundledNetwork):
    """A stack of blocks, each of which has an ``extractor``."""

    spec: StackSpec
    blocks: nn.ModuleList

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
            carry = self.normalised(carry)
        features: Tensor = self.extractor(block)(carry)
        return features

    def extractor(self, block: int) -> nn.Module:
        """That of block ``block``, 1..N."""
        extractor = self.blocks[block - 1].extractor
        assert isinstance(extractor, nn.Module)
        return extractor
