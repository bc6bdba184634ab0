"""Plain multi-exit networks, which Xpi's peers run on: the trunk is Xpi's, the exits are not.

    carry_{i-1} ─► extractor ─► features (n,C,h,w) ─┬─ all of them ───────────► carry_i
                                                    └─ all of them ─► branch ─► exit_i, or no exit

A block hands on all of its features, so nothing is kept for its exit, and an exit is its own branch
alone: it is not fused with others, and blocks need no logits. BranchyNet (ICPR'16), section III,
Edgent, SPINN and EdgeML put exits on a network in this way; which blocks have them is the spec's.
"""

import copy
from collections.abc import Collection
from typing import ClassVar, Self

from pydantic import Field, model_validator
from torch import nn

from xpi_ray.config import Frozen
from xpi_ray.networks.block import Branch, ExtractorSpec
from xpi_ray.networks.progressive import State
from xpi_ray.networks.stack import StackNetwork, StackSpec
from xpi_ray.networks.trunk import OnTrunk, OnTrunkSpec


class ExitSpec(Frozen):
    """The shape of a branch that reads all of a block's features."""

    squeezed: int = Field(default=0, ge=0)
    """Width of a 1x1 convolution that comes first; 0 leaves it out."""
    widths: tuple[int, ...] = ()
    """Of strided 3x3 convolutions, before pooling."""


class PlainBlockSpec(ExtractorSpec):
    """The shape of one block."""

    exit: ExitSpec | None = None
    """None where no exit is."""


class PlainSpec(StackSpec):
    """All that fixes a plain network but its weights."""

    blocks: tuple[PlainBlockSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _the_last_block_answers(self) -> "PlainSpec":
        if self.blocks[-1].exit is None:
            raise ValueError(f"block {len(self.blocks)} is the last and must have an exit")
        return self

    @property
    def exits(self) -> tuple[int, ...]:
        """The blocks that have an exit, ascending."""
        return tuple(n for n, block in enumerate(self.blocks, start=1) if block.exit is not None)

    def keeping(self, exits: Collection[int]) -> Self:
        """The spec with these exits only, and the last one, which always stays.

        Args:
            exits: Of ``self.exits``.

        Raises:
            ValueError: A block has no exit to keep.
        """
        missing = sorted(set(exits) - set(self.exits))
        if missing:
            raise ValueError(f"expected some of the exits {self.exits} to keep, got {missing} too")
        kept = {*exits, len(self.blocks)}
        blocks = tuple(
            block if number in kept else block.model_copy(update={"exit": None})
            for number, block in enumerate(self.blocks, start=1)
        )
        return self.model_copy(update={"blocks": blocks})


class PlainBlock(nn.Module):
    """Extractor and, where there is an exit, the branch that reads all of its features."""

    def __init__(self, extractor: nn.Module, spec: PlainBlockSpec, num_classes: int) -> None:
        super().__init__()
        self.extractor = extractor
        exit_ = spec.exit
        self.branch = (
            Branch(spec.channels, exit_.widths, num_classes, exit_.squeezed) if exit_ else None
        )


class PlainNetwork(StackNetwork):
    """A stack of plain blocks."""

    kind: ClassVar[str] = "plain"
    fuses = False
    spec: PlainSpec

    def __init__(self, spec: PlainSpec) -> None:
        super().__init__(spec)
        self.blocks = nn.ModuleList(
            PlainBlock(extractor, block, spec.num_classes)
            for extractor, block in zip(self._extractors(), spec.blocks, strict=True)
        )

    @property
    def exits(self) -> tuple[int, ...]:
        """The blocks that have an exit, ascending."""
        return self.spec.exits

    def advance(self, state: State, block: int) -> State:
        """Run block ``block`` (1..N); earlier logits, if there are any, are not looked at."""
        after, branch = self.skip_exit(state, block), self.block(block).branch
        return after if branch is None else State(after.carry, branch(after.carry))

    def skip_exit(self, state: State, block: int) -> State:
        """Run a block but not its branch."""
        features = self.features(state.carry, block)
        return State(features, features.new_empty((len(features), 0)))

    def keeping(self, exits: Collection[int]) -> Self:
        """A copy with these exits only, and the last one; other branches are dropped.

        Args:
            exits: Of ``self.exits``.

        Raises:
            ValueError: A block has no exit to keep.
        """
        spec = self.spec.keeping(exits)
        kept = copy.deepcopy(self)
        kept.spec = spec
        for number in set(self.exits) - set(spec.exits):
            kept.block(number).branch = None
        return kept

    def block(self, number: int) -> PlainBlock:
        """Block ``number``, 1..N."""
        block = self.blocks[number - 1]
        assert isinstance(block, PlainBlock)
        return block


class PlainTrunkSpec(PlainSpec, OnTrunkSpec):
    """All that fixes a plain network on the pretrained trunk but its weights."""


class PlainTrunkNetwork(OnTrunk, PlainNetwork):
    """Plain blocks whose features are a pretrained trunk's."""

    kind: ClassVar[str] = "plain-trunk"
    spec: PlainTrunkSpec

    def __init__(self, spec: PlainTrunkSpec) -> None:
        super().__init__(spec)
