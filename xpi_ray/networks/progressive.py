"""The one contract that training, serving, profiling and simulation see of a network.

    images ─► start ─► State ─► advance(1) ─► State ─► … ─► advance(N) ─► State
                                   │                            │
                                 exit 1                       exit N

Letters: n batch, K classes, C channels, h w height and width, N blocks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class State(NamedTuple):
    """All that block i+1 needs after block i; therefore all that a frame on the link holds."""

    carry: Tensor
    """Features handed on, float32 (n, C-k, h, w); before block 1 the images, uint8 (n, 3, H, W)."""
    logits: Tensor
    """Exit i's logits, float32 (n, K); before block 1, and after a block without an exit, an empty
    (n, 0)."""
    weight: float = 1.0
    """0..1: what these logits count in the next exit's fusion, relative to what they usually do;
    below 1 where exits behind theirs were skipped."""


def joined(states: Sequence[State]) -> State:
    """Several, none behind a skipped exit, as one batch."""
    if len(states) == 1:
        return states[0]
    carries, logits = zip(*((state.carry, state.logits) for state in states), strict=True)
    return State(torch.cat(carries), torch.cat(logits))


class ProgressiveNetwork(nn.Module, ABC):
    """A stack of blocks with exits after them. Subclass it to serve a network of your own."""

    num_classes: int
    image_size: tuple[int, int]
    """Height and width of the images that the network takes."""
    fuses: bool = True
    """Whether blocks read the logits of the exit before them; else no frame holds any."""

    @property
    @abstractmethod
    def num_blocks(self) -> int:
        """N, the number of blocks."""

    @property
    def exits(self) -> tuple[int, ...]:
        """The blocks that have an exit, ascending; the last block always has one."""
        return tuple(range(1, self.num_blocks + 1))

    @abstractmethod
    def advance(self, state: State, block: int) -> State:
        """Run one block.

        Args:
            state: What block ``block - 1`` returned, or ``start`` for block 1.
            block: The block to run, 1..N.
        """

    def skip_exit(self, state: State, block: int) -> State:
        """Run one block but not its exit, as EINet (ICDCS'23) skips branches to get deeper sooner.

        Logits that came in go on where blocks fuse, else there are none. As it stands here it runs
        the exit too, and drops what that says; override it to save the time.

        Args:
            state: What the block before returned, or ``start`` for block 1.
            block: The block to run, 1..N-1.
        """
        after = self.advance(state, block)
        return after._replace(logits=state.logits if self.fuses else after.logits[:, :0])

    @abstractmethod
    def carry_shape(self, partition: int) -> tuple[int, int, int]:
        """(C-k, h, w) of the carry after block ``partition``, 1..N; (3, H, W) for 0."""

    def prepare(self) -> Self:
        """Make the network ready to serve, in place: eval mode, no gradients."""
        return self.eval().requires_grad_(False)

    def start(self, images: Tensor) -> State:
        """Make the state that block 1 takes.

        Args:
            images: Pixels, uint8 0..255, (n, 3, H, W).
        """
        return State(images, images.new_empty((images.shape[0], 0), dtype=torch.float32))

    def finish(self, state: State, partition: int) -> Tensor:
        """Run all blocks behind block ``partition`` and return the last exit's logits, (n, K).

        Args:
            state: What block ``partition`` returned.
            partition: 0..N.
        """
        for block in range(partition + 1, self.num_blocks + 1):
            state = self.advance(state, block)
        return state.logits

    def forward(self, images: Tensor) -> list[Tensor]:
        """Run the whole network in one call and return the logits of ``exits``, each (n, K)."""
        state, exits = self.start(images), []
        for block in range(1, self.num_blocks + 1):
            state = self.advance(state, block)
            if state.logits.shape[1]:
                exits.append(state.logits)
        return exits
