"""What training does to a carry, so that later blocks learn from it as it arrives over the link.

    block i ─► carry ─► CarryQuantization: as it is, min-max or learned centres ─► block i+1

A plan may send the carry after any block at any level, so every batch meets one of them at random.
16 and 8 bits cost nothing that could be learnt; centres are not yet among a plan's levels.
Min-max: SAC-d co-inference, equation 4; centres: AgileNN (MobiCom'22), section 6. Gradients pass
the former unchanged (straight-through) and the latter softly.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from xpi_ray.compression.centres import Centres

UNTOUCHED_SHARE, MIN_MAX_SHARE = 0.5, 0.25
"""Shares of batches in training whose carry stays as it is, or is divided min-max as by a plan's
hardest level; the sets of centres divide the rest evenly."""
CENTRE_COUNTS = (16, 8, 4)
MIN_MAX_BITS = 4  # 8 and 16 bits cost no accuracy, so there is nothing to learn from them
MIN_MAX = f"minmax{MIN_MAX_BITS}"
FIRST_HARDNESS = 2.0


class CarryQuantization(nn.Module):
    """Quantises the carries of blocks 1..N-1; its parameters are the learned centres of each.

    Args:
        num_blocks: N.
        counts: Sizes of the sets of centres that every block has, each 2 to 16.
    """

    def __init__(self, num_blocks: int, counts: Sequence[int] = CENTRE_COUNTS) -> None:
        super().__init__()
        self.counts = tuple(counts)
        self.levels = (MIN_MAX, *(f"centres{count}" for count in counts))
        """Names of all ways to quantise: ``minmax4``, ``centres16`` and so on."""
        self.hardness = FIRST_HARDNESS
        """Of the soft assignment; for the trainer to raise, see ``Centres.forward``."""
        self._centres = nn.ModuleDict(
            {
                _key(block, count): Centres(count)
                for block in range(1, num_blocks)
                for count in counts
            }
        )

    def forward(
        self, carry: Tensor, block: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """In training mode quantise the batch at a random level, or not; in eval mode not.

        Args:
            carry: Of block ``block``, float32 (n, C, h, w).
            block: 1..N-1.
            generator: Source of the choice; torch's own if None.
        """
        if not self.training:
            return carry
        kind, which = torch.rand(2, generator=generator).tolist()
        if kind < UNTOUCHED_SHARE:
            return carry
        if kind < UNTOUCHED_SHARE + MIN_MAX_SHARE:
            return min_max(carry)
        return self.quantize(carry, block, self.levels[1 + int(which * len(self.counts))])

    def quantize(self, carry: Tensor, block: int, level: str) -> Tensor:
        """Quantise the carry of block ``block`` (1..N-1) at one of ``levels``.

        Raises:
            ValueError: There is no such level.
        """
        index = self.levels.index(level)
        if index == 0:
            return min_max(carry)
        quantised: Tensor = self.centres(block, self.counts[index - 1])(carry, self.hardness)
        return quantised

    def entropy_bits(self, carry: Tensor, block: int) -> Tensor:
        """The entropy, in bits a value, of the first of ``counts``; a scalar with a graph."""
        return self.centres(block, self.counts[0]).entropy_bits(carry, self.hardness)

    def learned(self) -> dict[str, Tensor]:
        """All centres, ascending, by the names that a bundle has for them."""
        sets = cast(dict[str, Centres], dict(self._centres.items()))
        return {name: centres.ascending().detach() for name, centres in sets.items()}

    def centres(self, block: int, count: int) -> Centres:
        """The set of ``count`` centres of block ``block``."""
        return cast(Centres, self._centres[_key(block, count)])

    def initialise(self, block: int, carry: Tensor) -> None:
        """Spread all centres of block ``block`` over a batch of its carries (n, C, h, w)."""
        for count in self.counts:
            self.centres(block, count).initialise(carry)


def _key(block: int, count: int) -> str:
    return f"block{block}_centres{count}"


def min_max(carry: Tensor) -> Tensor:
    """Divide each sample's range into 2^4 levels, as ``MinMaxQuantizer`` does, to the last bit.

    Args:
        carry: Float32 (n, C, h, w), finite. The gradient in it is that of the result.
    """
    top = 2**MIN_MAX_BITS - 1
    with torch.no_grad():  # in float64, as MinMaxQuantizer
        minimum = carry.amin((1, 2, 3), keepdim=True).double()
        spread = carry.amax((1, 2, 3), keepdim=True).double() - minimum
        scale = torch.where(spread > 0, top / spread, 0.0)
        symbols = ((carry - minimum) * scale).round()
        quantised = (symbols * (spread / top) + minimum).to(carry.dtype)
    passed: Tensor = quantised + (carry - carry.detach())
    return passed
