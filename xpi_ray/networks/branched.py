"""A traced network cut into blocks, with a branch after each: EINet's fine-grained networks.

    carry_{i-1} ─► nodes up to the i-th cut ─► carry_i ─┬──────────────────────► block i+1
                                                        └─► branch ─► exit_i, or no exit
    carry_{N-1} ─► the other nodes, the model's own head ─► exit_N

EINet (ICDCS'23), "fine-grained multi-exit NNs": a block is a conv part and its branch, and a branch
is one convolution and two linear layers. Sizes of branches are not told there; ours average
features to a small grid first, so that an early branch costs no more than a late one.
"""

import copy
from collections.abc import Collection
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.config import Frozen
from xpi_ray.networks.block import ConvNorm
from xpi_ray.networks.bundled import IMAGE_CHANNELS, BundledNetwork, NetworkSpec
from xpi_ray.networks.graph import MOST_WEIGHTS, Graph, GraphSpec, shapes_of
from xpi_ray.networks.progressive import State


class FineBranchSpec(Frozen):
    """The shape of a branch."""

    read: int = Field(default=8, ge=1, le=64)
    """Height and width, at most, of the features that the convolution reads; larger ones are
    averaged."""
    width: int = Field(default=32, ge=1, le=512)
    """Channels of the 3x3 convolution."""
    left: int = Field(default=4, ge=1, le=8)
    """Height and width, at most, to which what it makes is averaged."""
    hidden: int = Field(default=64, ge=1, le=1024)
    """Between the two linear layers."""


class FineBlockSpec(Frozen):
    """A block that is not the last."""

    cut: int = Field(ge=1)
    """The node that ends it."""
    branch: FineBranchSpec | None = None
    """None where no exit is."""


class BranchedSpec(NetworkSpec):
    """All that fixes a branched network but its weights."""

    graph: GraphSpec
    blocks: tuple[FineBlockSpec, ...] = ()
    """Blocks 1..N-1; block N is the rest of the graph."""

    @model_validator(mode="after")
    def _blocks_end_at_cuts(self) -> Self:
        ends = [block.cut for block in self.blocks]
        if not set(ends) <= set(self.graph.cuts()) or ends != sorted(set(ends)):
            raise ValueError(
                f"blocks must end at some of the cuts {self.graph.cuts()}, ascending; got {ends}"
            )
        return self

    @property
    def exits(self) -> tuple[int, ...]:
        """The blocks that have an exit, ascending."""
        with_branch = (n for n, block in enumerate(self.blocks, start=1) if block.branch)
        return (*with_branch, len(self.blocks) + 1)

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
        blocks = tuple(
            block if number in exits else block.model_copy(update={"branch": None})
            for number, block in enumerate(self.blocks, start=1)
        )
        return self.model_copy(update={"blocks": blocks})


class FineBranch(nn.Module):
    """One convolution and two linear layers.

    Args:
        channels: Of the features that it reads.
        size: Their height and width.
        spec: Its shape.
        num_classes: K.
    """

    def __init__(
        self, channels: int, size: tuple[int, int], spec: FineBranchSpec, num_classes: int
    ) -> None:
        super().__init__()
        height, width = size
        self.read = min(height, spec.read), min(width, spec.read)
        self.left = min(height, spec.left), min(width, spec.left)
        self.conv = ConvNorm(channels, spec.width)
        self.hidden = nn.Linear(spec.width * self.left[0] * self.left[1], spec.hidden)
        self.classifier = nn.Linear(spec.hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, C, h, w) to logits (n, K)."""
        found = F.relu(self.conv(F.adaptive_avg_pool2d(features, self.read)))
        hidden = F.relu(self.hidden(F.adaptive_avg_pool2d(found, self.left).flatten(1)))
        logits: Tensor = self.classifier(hidden)
        return logits


class BranchedNetwork(BundledNetwork):
    """A network of anyone's, in blocks that have branches.

    Raises:
        ValueError: The spec's graph cannot run on such images or gives no logits, or there would be
            too many weights or values for a network that may come from anywhere.
    """

    kind: ClassVar[str] = "branched"
    fuses = False
    spec: BranchedSpec

    def __init__(self, spec: BranchedSpec) -> None:
        super().__init__(spec)
        self.trained = False
        """Whether the graph's weights were learnt before, so that a training changes them slowly.
        """
        self.frozen = False
        shapes = shapes_of(spec.graph, spec.image_size)
        if shapes[-1] != (1, spec.num_classes):
            raise ValueError(
                f"the graph must make logits (1, {spec.num_classes}) of an image, not {shapes[-1]}"
            )
        self._carried = [shapes[block.cut][1:] for block in spec.blocks]
        flat = [number for number, shape in enumerate(self._carried, start=1) if len(shape) != 3]
        if flat:
            raise ValueError(f"blocks must hand on tensors (n, C, h, w), blocks {flat} do not")
        with torch.device("meta"):
            weights = sum(w.numel() for w in self._branches().parameters())
        if weights > MOST_WEIGHTS:
            raise ValueError(f"branches may have {MOST_WEIGHTS} weights, not {weights}")
        self.graph = Graph(spec.graph)
        self.branches = self._branches()
        """By the number of their block."""
        self._ends = [0, *(block.cut for block in spec.blocks), len(spec.graph.nodes)]

    def _branches(self) -> nn.ModuleDict:
        """Fresh ones."""
        found = nn.ModuleDict()
        for number, block in enumerate(self.spec.blocks, start=1):
            if block.branch is not None:
                channels, height, width = self.carry_shape(number)
                branch = FineBranch(channels, (height, width), block.branch, self.num_classes)
                found[str(number)] = branch
        return found

    @property
    def num_blocks(self) -> int:
        """N."""
        return len(self.spec.blocks) + 1

    @property
    def exits(self) -> tuple[int, ...]:
        """The blocks that have an exit, ascending."""
        return self.spec.exits

    def carry_shape(self, partition: int) -> tuple[int, int, int]:
        """(C, h, w) after block ``partition``, C = 0 after the last; (3, H, W) for 0."""
        if partition == 0:
            return IMAGE_CHANNELS, *self.image_size
        if partition == self.num_blocks:
            return 0, 1, 1
        channels, height, width = self._carried[partition - 1]
        return channels, height, width

    def advance(self, state: State, block: int) -> State:
        """Run block ``block`` (1..N); earlier logits, if there are any, are not looked at."""
        after = self.skip_exit(state, block)
        name = str(block)
        return (
            after._replace(logits=self.branches[name](after.carry))
            if name in self.branches
            else after
        )

    def skip_exit(self, state: State, block: int) -> State:
        """Run a block but not its branch; the last block's exit is part of it, and runs."""
        carry = self.normalised(state.carry) if block == 1 else state.carry
        found = self.graph.run(carry, *self._ends[block - 1 : block + 1])
        if block == self.num_blocks:
            return State(found.new_empty((len(found), 0, 1, 1)), found)
        return State(found, found.new_empty((len(found), 0)))

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
            del kept.branches[str(number)]
        return kept

    def freeze(self) -> None:
        """Keep the graph, statistics of its norms included, as it is; only branches learn."""
        self.frozen = True
        self.graph.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but of a frozen graph."""
        super().train(mode)
        if self.frozen:
            self.graph.eval()
        return self

    def pretrained(self) -> list[nn.Module]:
        """The graph, where its weights were learnt before."""
        return [self.graph] if self.trained else []

    def thaw(self) -> None:
        """Make trainable again what is not frozen."""
        super().thaw()
        if self.frozen:
            self.freeze()

    def prepare(self) -> Self:
        """Make the network ready to serve, in place: norms folded, channels last."""
        super().prepare()
        self.graph.fold([block.cut for block in self.spec.blocks])
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self
