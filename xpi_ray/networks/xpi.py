"""The Xpi network: any number of Xpi blocks in a row, behind the progressive contract."""

from itertools import pairwise
from typing import ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn

from xpi_ray.networks.block import BlockSpec, XpiBlock
from xpi_ray.networks.progressive import State
from xpi_ray.networks.stack import StackNetwork, StackSpec


class XpiSpec(StackSpec):
    """All that fixes an Xpi network but its weights."""

    blocks: tuple[BlockSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _only_the_last_block_may_end_the_carry(self) -> "XpiSpec":
        for number, (block, _) in enumerate(pairwise(self.blocks), start=1):
            if block.branch_channels == block.channels:
                raise ValueError(f"block {number} hands no channels to block {number + 1}")
        return self


class XpiNetwork(StackNetwork):
    """A stack of Xpi blocks."""

    kind: ClassVar[str] = "xpi"
    spec: XpiSpec

    def __init__(self, spec: XpiSpec) -> None:
        super().__init__(spec)
        self.blocks = nn.ModuleList(
            XpiBlock(extractor, block, spec.num_classes)
            for extractor, block in zip(self._extractors(), spec.blocks, strict=True)
        )

    def advance(self, state: State, block: int) -> State:
        """Run block ``block`` (1..N) on the state that the block before it returned."""
        features = self.features(state.carry, block)
        return self.leave(features, state.logits, block, state.weight)

    def skip_exit(self, state: State, block: int) -> State:
        """Run a block but not its branch; the next exit fuses with the one before this."""
        this = self.block(block)
        _, carry = this.split(self.features(state.carry, block))
        return State(carry, state.logits, state.weight * float(this.alpha))

    def leave(self, features: Tensor, earlier: Tensor, block: int, weight: float = 1.0) -> State:
        """From a block's features (n, C, h, w) and the last exit, (n, K), to its own state."""
        this = self.block(block)
        kept, carry = this.split(features)
        return State(carry, this.fuse(earlier, this.branch(kept), weight))

    def block(self, number: int) -> XpiBlock:
        """Block ``number``, 1..N."""
        block = self.blocks[number - 1]
        assert isinstance(block, XpiBlock)
        return block
