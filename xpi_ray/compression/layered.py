"""A carry in layers, each of which makes its symbols three times as fine.

    carry ─► round to the finest step ─┬─ coarsest symbols ─► context model ─► segment 0
                                       ├─ digits -1, 0, 1, first half of the channels ─► segment 1
                                       ├─ the second half ──────────────────────────────► segment 2
                                       └─ … the next layer's halves, and so on
    any number of leading segments ─► the carry, as exactly as they say

So one encoding serves all levels: a level is how many layers are sent, and what is cut off at the
end, by choice or by a deadline, costs exactness only. Steps are the bundle's, fixed for each
partition: on trained networks that loses less accuracy at equal bytes than learned centres or a
range for each carry; so does rounding to the middle of a step, against the mean of what falls in.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.coders import Symbols, symbol_type
from xpi_ray.compression.context_model import ContextModel
from xpi_ray.compression.range_coder import RangeCoder
from xpi_ray.compression.refinement import DIGITS, Layer, RefinementModel
from xpi_ray.compression.symbol_model import Arrays, named
from xpi_ray.errors import CodecError

REFINEMENTS = 4
COARSEST = 3.0  # step of the base, in root mean squares of the training carries
ACROSS = 2  # refinements, the coarsest, in which other channels tell enough to be asked
HALVES = 2  # segments of a refinement
MARGIN = 1  # coarsest steps beyond what training carries held, before values are cut
MOST_FITTED = 2**22  # symbols that a codec learns from; more tell no more


class _Known(NamedTuple):
    """A carry as far as it was read."""

    symbols: Layer
    steps: NDArray[np.float64]
    """(C, 1, 1): what a symbol of each channel counts in."""

    def carry(self) -> NDArray[np.float32]:
        carry: NDArray[np.float32] = (self.symbols * self.steps).astype(np.float32)
        return carry


class LayeredCodec:
    """Codes the carries of one partition.

    Args:
        step: Of the base; each refinement divides it by 3.
        lowest: The coarsest symbol that the base's first one stands for.
        base: Its model.
        refinements: The coarsest first.

    Raises:
        CodecError: The parts do not fit each other.
    """

    def __init__(
        self, step: float, lowest: int, base: ContextModel, refinements: Sequence[RefinementModel]
    ) -> None:
        if not (np.isfinite(step) and step > 0) or any(r.shape != base.shape for r in refinements):
            raise CodecError(
                f"expected a step above 0 and models of one shape, got {step} and {base.shape}, "
                f"{[model.shape for model in refinements]}"
            )
        self.shape = base.shape
        self._step, self._lowest, self._base_model = step, lowest, base
        self._base, self._refinements = RangeCoder(base), tuple(refinements)
        edges = [self.shape[0] * half // HALVES for half in range(HALVES + 1)]
        self._halves = [slice(low, high) for low, high in pairwise(edges) if low < high]
        self.ends = [1 + len(self._halves) * n for n in range(1 + len(self._refinements))]
        """How many segments the base has, and it with each further layer."""

    @property
    def layers(self) -> int:
        """The base and the refinements."""
        return len(self.ends)

    def encode(self, carry: NDArray[np.float32], layers: int) -> list[bytes]:
        """Return the segments of the first layers of a carry (C, h, w).

        Args:
            carry: Of the codec's shape. Values beyond what training carries held are cut.
            layers: 1..``layers``.

        Raises:
            CodecError: The carry is not finite.
        """
        symbols = self._symbols(carry, layers - 1)
        segments = [self._base.encode(self._shifted(symbols[0]), self._base_model.alphabet)]
        for model, (coarse, fine) in zip(self._refinements, pairwise(symbols), strict=False):
            digits = (fine - DIGITS * coarse).astype(np.int8)
            rows = model.rows(coarse)
            segments += [model.encode(digits[half], rows[half]) for half in self._halves]
        return segments

    def decode(self, segments: Sequence[bytes]) -> NDArray[np.float32]:
        """Return the carry (C, h, w), writable, as exactly as leading segments say.

        Raises:
            CodecError: They are not leading segments of a carry, or none.
        """
        for known in self._read(segments):
            last = known
        return last.carry()

    def decode_layers(self, segments: Sequence[bytes]) -> list[NDArray[np.float32]]:
        """Return the carry as it is known after each whole layer, the base first.

        Raises:
            CodecError: See ``decode``.
        """
        return [
            known.carry()
            for count, known in enumerate(self._read(segments), start=1)
            if count in self.ends
        ]

    def _read(self, segments: Sequence[bytes]) -> Iterator["_Known"]:
        """What is known after each segment; the same object, refined in place."""
        if not 1 <= len(segments) <= self.ends[-1]:
            raise CodecError(f"expected 1..{self.ends[-1]} segments, got {len(segments)}")
        base = self._base.decode(segments[0], self.shape, self._base_model.alphabet)
        steps = np.full((self.shape[0], 1, 1), self._step)
        known = _Known(base.astype(np.int32) + self._lowest, steps)
        yield known
        rest = iter(segments[1:])
        for model in self._refinements:
            rows: NDArray[np.intp] | None = None
            for half in self._halves:
                segment = next(rest, None)
                if segment is None:
                    return
                rows = model.rows(known.symbols) if rows is None else rows
                digits = model.decode(segment, rows[half])
                known.symbols[half] = DIGITS * known.symbols[half] + digits
                known.steps[half] /= DIGITS
                yield known

    def _symbols(self, carry: NDArray[np.float32], refinements: int) -> list[Layer]:
        """Those of the base and of so many refinements."""
        scale = DIGITS**refinements
        reach = (scale - 1) // 2  # by which the finest symbol of a coarse one lies off its middle
        lowest = self._lowest * scale - reach
        highest = (self._lowest + self._base_model.alphabet - 1) * scale + reach
        scaled = np.rint(carry * np.float64(scale / self._step))
        if not np.isfinite(scaled).all():
            raise CodecError("expected finite values to encode, got NaN or infinity")
        return _coarsened(np.clip(scaled, lowest, highest).astype(np.int32), refinements)

    def _shifted(self, base: Layer) -> Symbols:
        return (base - self._lowest).astype(symbol_type(self._base_model.alphabet))

    @classmethod
    def fit(cls, carries: NDArray[np.float32]) -> Self:
        """Learn from training carries (n, C, h, w), a few hundred of them or fewer large ones."""
        carries = carries[: max(1, MOST_FITTED // carries[0].size)]
        step = COARSEST * float(np.sqrt(np.square(carries, dtype=np.float64).mean())) or 1.0
        scale = DIGITS**REFINEMENTS
        fine = np.rint(carries * np.float64(scale / step)).astype(np.int32)
        layers = _coarsened(fine, REFINEMENTS)
        lowest, highest = int(layers[0].min()) - MARGIN, int(layers[0].max()) + MARGIN
        alphabet = highest - lowest + 1
        base = (layers[0] - lowest).astype(symbol_type(alphabet))
        refinements = [
            RefinementModel.fit(
                coarse, (finer - DIGITS * coarse).astype(np.int8), across=n < ACROSS
            )
            for n, (coarse, finer) in enumerate(pairwise(layers))
        ]
        return cls(step, lowest, ContextModel.fit(base, alphabet), refinements)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs."""
        numbered = {str(number): model for number, model in enumerate(self._refinements)}
        parts: dict[str, ContextModel | RefinementModel] = {"base": self._base_model, **numbered}
        arrays = {
            f"{name}.{key}": array
            for name, part in parts.items()
            for key, array in part.to_arrays().items()
        }
        return {"step": np.array([self._step]), "lowest": np.array([self._lowest]), **arrays}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Make it again; CodecError if the arrays do not fit each other."""
        refinements: list[RefinementModel] = []
        while f"{len(refinements)}.shape" in arrays:
            refinements.append(RefinementModel.from_arrays(named(arrays, str(len(refinements)))))
        return cls(
            float(arrays["step"][0]),
            int(arrays["lowest"][0]),
            ContextModel.from_arrays(named(arrays, "base")),
            refinements,
        )


def _coarsened(fine: Layer, times: int) -> list[Layer]:
    """The finest symbols, and those with one layer less each time; the coarsest first."""
    layers = [fine]
    for _ in range(times):
        layers.append((layers[-1] + 1) // DIGITS)
    return layers[::-1]
