"""Learned scalar quantisation: each value becomes the nearest of 2 to 16 trained centres.

    training:  carry ─► Centres ─► the carry as it arrives over the link, with a gradient
    serving:   carry ─► assign ─► symbols ══ link ══► look_up ─► the same values

Soft-to-hard quantisation of Agustsson et al., "Soft-to-Hard Vector Quantization for End-to-End
Learning Compressible Representations" (NIPS'17), section 3: the hard value forward, backward the
gradient of a softmax over -σ(x-c)², σ annealed. AgileNN (MobiCom'22), section 6, does likewise.

Three departures from the papers:

* The softmax runs over the two centres around a value, not over all m: the limit is the same, and
  nothing m times the size of the carry is made.
* σ counts in units of the distance of these two, σ = hardness / distance², so that one hardness
  suits every amplitude and every m; with one σ for all, close centres would pass no gradient.
* Centres take the gradient of the hard value, as in van den Oord et al., "Neural Discrete
  Representation Learning" (NIPS'17). The soft one expects that moving a centre moves values across
  the border smoothly, which the hard forward pass does not do: of a sample of two humps, one of
  them near the border, it drove the centres away at hardness 8.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xpi_ray.errors import CodecError

FEWEST, MOST = 2, 16
LEAST_HALF = 1e-6  # of the distance of two centres, so that those that meet do no harm
HISTOGRAM_BINS = 256
LLOYD_STEPS = 20  # within 3 % of the distortion that 300 reach, on carries of a trained network


class _Neighbours(NamedTuple):
    """The two centres around each of n values; the outermost two take what is beyond them."""

    lower: Tensor
    """Index of the lower one."""
    nearest: Tensor
    """Index of the nearer one."""
    half: Tensor
    """Half their distance."""
    lean: Tensor
    """The softmax: from -1, all weight on the lower, to 1, all on the upper."""


class Centres(nn.Module):
    """The centres that quantise one tensor.

    Args:
        count: m, the number of centres, 2 to 16.

    Raises:
        CodecError: ``count`` is out of range.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        if not FEWEST <= count <= MOST:
            raise CodecError(f"expected {FEWEST} to {MOST} centres, got {count}")
        self.values = nn.Parameter(torch.linspace(0, 1, count))  # (m,), in any order

    def ascending(self) -> Tensor:
        """The centres in order, (m,): symbol i stands for the i-th."""
        return self.values.sort().values

    def forward(self, carry: Tensor, hardness: float) -> Tensor:
        """Replace every value by the nearest centre; by the lower of two that are equally near.

        Args:
            carry: Float32 (n, C, h, w), finite.
            hardness: Above 0. The gradient in the carry is ``hardness / 2`` midway between two
                centres and falls towards them; its mean is ``tanh(hardness / 2)``. Anneal it
                upwards from about 2: at 10 and more, few values feel a gradient. A centre's
                gradient is the sum of its values' whatever the hardness. Eval mode makes no graph.

        Returns:
            (n, C, h, w), centres all.
        """
        flat, centres = _flat(carry), self.ascending()
        if self.training:
            found = _neighbours(flat, centres.detach(), hardness)
            soft = found.half * found.lean  # but for a constant
            hard = centres.index_select(0, found.nearest)
            quantised = hard + (soft - soft.detach())  # the hard value to the last bit
        else:
            nearest = _count_below(flat, _middles(centres))
            quantised = centres.detach().index_select(0, nearest)
        return quantised.view(carry.movedim(1, -1).shape).movedim(-1, 1)

    def entropy_bits(self, carry: Tensor, hardness: float) -> Tensor:
        """Estimate the symbols' entropy in bits a value, 0..log2 m; a scalar with a graph.

        It is the entropy of the mean soft assignment (the paper's section 3) and becomes that of
        the symbols as ``hardness`` grows.
        """
        found = _neighbours(_flat(carry), self.ascending(), hardness)
        upper = (1 + found.lean.double()) / 2  # in float32 a million of them would not add up
        counts = upper.new_zeros(len(self.values))
        counts = counts.index_add(0, found.lower, 1 - upper).index_add(0, found.lower + 1, upper)
        shares = counts / len(upper)
        bits = -(shares * shares.clamp_min(torch.finfo(shares.dtype).tiny).log2()).sum()
        return bits.to(carry.dtype)

    @torch.no_grad()
    def initialise(self, carry: Tensor) -> None:
        """Spread the centres over a batch of carries (n, C, h, w), so that it is distorted little.

        They start even in the integral of the density's cube root (Panter and Dite, 1951) and move
        to the means of their cells (Lloyd, 1982). On ReLU carries, half of them zeros and few of
        them large, 4 to 16 such centres come within 4 % of the least distortion found by any means;
        quantiles of the non-zero values alone had 2 to 10 times as much. If there are zeros, a
        centre is exactly zero.
        """
        flat = _flat(carry)
        exact = flat.double()
        centres = _even_in_cube_root_of_density(flat, len(self.values))
        for _ in range(LLOYD_STEPS):
            symbols = _count_below(flat, _middles(centres))
            sizes = torch.bincount(symbols, minlength=len(centres))
            sums = torch.bincount(symbols, exact, len(centres))
            centres = torch.where(sizes > 0, (sums / sizes).to(flat.dtype), centres)
        if (flat == 0).any():
            centres[centres.abs().argmin()] = 0
        self.values.copy_(centres)


def _neighbours(flat: Tensor, centres: Tensor, hardness: float) -> _Neighbours:
    """Place values (n,) between ascending centres; differentiable in both."""
    lower = _count_below(flat, centres[1:-1])
    half = (centres.diff() / 2).clamp_min(LEAST_HALF).index_select(0, lower)
    above = flat - _middles(centres).index_select(0, lower)
    # A softmax of two is a tanh; σ counts as a constant.
    lean = torch.tanh(above / half.detach() * (hardness / 2))
    return _Neighbours(lower, lower + (above.detach() > 0), half, lean)


def _flat(carry: Tensor) -> Tensor:
    """(n, C, h, w) to (n·h·w·C,): the order in which training lays carries out."""
    return carry.movedim(1, -1).reshape(-1)


def _middles(centres: Tensor) -> Tensor:
    return (centres[:-1] + centres[1:]) / 2


@torch.no_grad()
def _count_below(flat: Tensor, bounds: Tensor) -> Tensor:
    """How many of the few bounds lie below each value, int32; in half the time of ``bucketize``."""
    counts, is_above = torch.zeros_like(flat), torch.empty_like(flat)
    for bound in bounds.tolist():
        counts += torch.gt(flat, bound, out=is_above)
    return counts.int()


def _even_in_cube_root_of_density(flat: Tensor, count: int) -> Tensor:
    """Ascending centres (count,), of which each takes as much of that integral as the next."""
    lowest, highest = flat.aminmax()
    density = torch.histc(flat, HISTOGRAM_BINS, float(lowest), float(highest))
    integral = density.pow(1 / 3).cumsum(0)
    wanted = (torch.arange(count) + 0.5) / count * integral[-1]
    bins = torch.searchsorted(integral, wanted)
    return lowest + (highest - lowest) * (bins + 0.5) / HISTOGRAM_BINS


def assign(values: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Symbol of each value, 0..m-1: its nearest centre, by the very rule of ``Centres``.

    Args:
        values: Finite, of any shape.
        centres: Ascending, (m,), 2 to 16.

    Raises:
        CodecError: The centres are not such.
    """
    if not FEWEST <= len(centres) <= MOST or (np.diff(centres) < 0).any():
        raise CodecError(f"expected {FEWEST} to {MOST} ascending centres, got {centres}")
    return np.searchsorted((centres[:-1] + centres[1:]) / 2, values).astype(np.uint8)


def look_up(symbols: NDArray[np.uint8], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values that symbols of any shape stand for.

    Raises:
        CodecError: There is a symbol that no centre (m,) has.
    """
    if symbols.size and symbols.max() >= len(centres):
        raise CodecError(f"expected symbols below {len(centres)}, got {symbols.max()}")
    return centres[symbols]
