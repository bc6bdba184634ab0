"""A progressive network on a pretrained trunk, for data sets with few images.

    carry_{i-1} ─► i-th part of the trunk ─┬──────────────────────────────► carry_i
                                           └─► convolution ─► k channels ─► branch ─► b_i

What the trunk makes is handed on as it is, so that exits on the way take nothing from the last one,
whose branch reads all that the trunk's head makes. The rest is as in an Xpi network. The trunk is
EfficientNet-Lite0, which a training may freeze.
"""

import math
from collections.abc import Iterator
from itertools import accumulate, islice, pairwise
from typing import ClassVar, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.networks.block import ConvNorm, ExtractorSpec
from xpi_ray.networks.efficientnet import PIECES, lite0_body
from xpi_ray.networks.progressive import State
from xpi_ray.networks.stack import StackNetwork, StackSpec
from xpi_ray.networks.xpi import XpiNetwork, XpiSpec


class TrunkPart(NamedTuple):
    """The pieces of the trunk that belong to one block."""

    pieces: slice
    channels: int
    """Those that the last piece makes."""
    stride: int


def trunk_parts(depths: tuple[int, ...]) -> list[TrunkPart]:
    """Cut the trunk into parts of ``depths`` pieces."""
    return [
        TrunkPart(
            slice(start, end),
            PIECES[end - 1][0],
            math.prod(stride for _, stride in PIECES[start:end]),
        )
        for start, end in pairwise(accumulate(depths, initial=0))
    ]


class OnTrunkSpec(StackSpec):
    """What the spec of any network on the trunk has."""

    trunk_size: int = Field(ge=32, le=1024)
    """Height and width to which images are scaled for the trunk."""
    depths: tuple[int, ...]
    """How many of the trunk's 18 pieces each block has: a stem, 16 MBConvs, a head."""

    @model_validator(mode="after")
    def _blocks_fit_the_trunk(self) -> Self:
        depths, count = self.depths, len(self.blocks)
        if len(depths) != count or sum(depths) != len(PIECES) or min(depths) < 1:
            raise ValueError(
                f"depths must be {count} numbers of 1 or more, one for each block, and "
                f"{len(PIECES)} together; got {depths}"
            )
        parts = zip(self.blocks, trunk_parts(depths), strict=True)
        for number, (block, part) in enumerate(parts, start=1):
            fitting = {**self._widths(number, part), "stride": part.stride, "stem_channels": 0}
            if block != block.model_copy(update=fitting):
                raise ValueError(f"block {number} must have {fitting}; got {block!r}")
        return self

    def _widths(self, number: int, part: TrunkPart) -> dict[str, int]:
        """What block ``number`` (1..N) must have to be of that part."""
        del number
        return {"channels": part.channels}


class TrunkSpec(XpiSpec, OnTrunkSpec):
    """All that fixes a trunk network but its weights.

    A block carries what its part of the trunk makes; the last block's branch reads it instead.
    """

    def _widths(self, number: int, part: TrunkPart) -> dict[str, int]:
        if number == len(self.blocks):
            return {"channels": part.channels, "branch_channels": part.channels}
        return {"channels": self.blocks[number - 1].branch_channels + part.channels}


class TrunkExtractor(nn.Module):
    """A part of the trunk, and the fresh channels that are made of its output for the branch."""

    def __init__(self, part: nn.Sequential, spec: ExtractorSpec, scale: nn.Module) -> None:
        super().__init__()
        fresh = spec.channels - spec.carried
        self.scale = scale
        self.part = part
        self.fresh = ConvNorm(spec.carried, fresh) if spec.carried and fresh else None
        self.frozen = False

    def forward(self, carry: Tensor) -> Tensor:
        """Carry (n, C_in, h, w) to features (n, C, h/stride, w/stride), the fresh ones first."""
        carry = self.part(self.scale(carry))
        if self.fresh is None:
            return carry
        return torch.cat([F.relu(self.fresh(carry)), carry], dim=1)

    def freeze(self) -> None:
        """Keep the trunk's part, statistics of its norms included, as it is from now on."""
        self.frozen = True
        self.part.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but of a frozen part."""
        super().train(mode)
        if self.frozen:
            self.part.eval()
        return self


class OnTrunk(StackNetwork):
    """What any network on the trunk can do: its extractors are the trunk's parts."""

    spec: OnTrunkSpec

    def _extractors(self) -> Iterator[TrunkExtractor]:
        pieces, size = list(lite0_body()), self._extracted_size()
        scale: nn.Module = nn.Upsample(size, mode="bilinear")
        for part, block in zip(trunk_parts(self.spec.depths), self.spec.blocks, strict=True):
            yield TrunkExtractor(nn.Sequential(*pieces[part.pieces]), block, scale)
            scale = nn.Identity()

    def _extracted_size(self) -> tuple[int, int]:
        """Block 1 scales images to it."""
        return self.spec.trunk_size, self.spec.trunk_size

    def extractor(self, block: int) -> TrunkExtractor:
        """That of block ``block``, 1..N."""
        extractor = super().extractor(block)
        assert isinstance(extractor, TrunkExtractor)
        return extractor

    def load_trunk(self, weights: dict[str, Tensor]) -> None:
        """Give the trunk the weights of a ``lite0_body``, such as ``imagenet_weights()``."""
        pieces = (piece for extractor in self._built() for piece in extractor.part)
        nn.Sequential(*pieces).load_state_dict(weights)

    def freeze_trunk(self, blocks: int) -> None:
        """Keep the trunk of the first blocks as it is from now on, norms' statistics included."""
        for extractor in islice(self._built(), blocks):
            extractor.freeze()

    def pretrained(self) -> list[nn.Module]:
        """The trunk, frozen or not."""
        return [extractor.part for extractor in self._built()]

    def thaw(self) -> None:
        """Make trainable again what is not of a frozen trunk."""
        super().thaw()
        for extractor in self._built():
            if extractor.frozen:
                extractor.freeze()

    def _built(self) -> Iterator[TrunkExtractor]:
        return map(self.extractor, range(1, self.num_blocks + 1))


class TrunkNetwork(OnTrunk, XpiNetwork):
    """Xpi blocks whose carries are a pretrained trunk's."""

    kind: ClassVar[str] = "xpi-trunk"
    spec: TrunkSpec

    def __init__(self, spec: TrunkSpec) -> None:
        super().__init__(spec)

    def leave(self, features: Tensor, earlier: Tensor, block: int, weight: float = 1.0) -> State:
        """As in any Xpi network; no gradient goes where nothing learns."""
        state = super().leave(features, earlier, block, weight)
        frozen = self.extractor(block).frozen
        return State(state.carry.detach(), state.logits) if frozen else state
