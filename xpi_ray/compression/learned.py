"""The smallest levels: a carry's latents, rounded, the most important in a segment of their own.

    carry ─► Transform.analyse ─► round ─┬─ first 6 latents ─► range coder ─► segment 0
                                         └─ other 10 ────────► range coder ─► segment 1
    one segment or both ─► latents ─► Transform.synthesise ─► carry

What arrives is not the carry, but one that leads the later blocks to the same answer. Each latent
has a distribution of its own; contexts, as carries have, would save 2 %: the training has left
latents little to tell of each other.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xpi_ray.compression.coders import Shape, symbol_type
from xpi_ray.compression.range_coder import RangeCoder
from xpi_ray.compression.symbol_model import Arrays, ChannelModel, named
from xpi_ray.compression.transform import LATENTS, Transform, latent_shape
from xpi_ray.errors import CodecError

ENDS = (0, 6, LATENTS)  # of the segments, in latents
SEGMENTS = len(ENDS) - 1
LEAN = 0.15  # of a step; 11 % fewer bytes, and hardly any accuracy, against 0
MARGIN = 1  # steps beyond what training carries held, before latents are cut
PARTS = [slice(first, end) for first, end in pairwise(ENDS)]


class _Segment(NamedTuple):
    """How some latents are coded."""

    lowest: int
    """The latent that symbol 0 stands for."""
    model: ChannelModel
    coder: RangeCoder

    def encode(self, latents: NDArray[np.int64]) -> bytes:
        """Latents (c, h, w), cut to what the model knows."""
        symbols = np.clip(latents - self.lowest, 0, self.model.alphabet - 1)
        return self.coder.encode(
            symbols.astype(symbol_type(self.model.alphabet)), self.model.alphabet
        )


class LearnedCodec:
    """Codes the carries of one partition.

    Args:
        transform: In eval mode.
        shape: (C, h, w) of the carries.
        models: Of each segment's latents, with the latent that symbol 0 stands for.

    Raises:
        CodecError: The parts do not fit each other.
    """

    def __init__(
        self, transform: Transform, shape: Shape, models: Sequence[tuple[int, ChannelModel]]
    ) -> None:
        self.shape, self._latents = shape, latent_shape(shape)
        found = [model.shape for _, model in models]
        expected = [(part.stop - part.start, *self._latents[1:]) for part in PARTS]
        if found != expected or transform.mean.shape != (shape[0], 1, 1):
            raise CodecError(
                f"expected models {expected} and a transform of {shape[0]} channels, got {found} "
                f"and {len(transform.mean)}"
            )
        self._transform = transform
        for weight in transform.parameters():
            if weight.ndim == 4:
                weight.data = _channels_last(weight.data)  # nearly twice as quick
        self._segments = [_Segment(low, model, RangeCoder(model)) for low, model in models]

    @torch.inference_mode()
    def encode(self, carry: NDArray[np.float32], segments: int) -> list[bytes]:
        """Return the first 1 or 2 segments of a carry (C, h, w).

        Raises:
            CodecError: The carry is not finite.
        """
        analysed = self._transform.analyse(_channels_last(torch.from_numpy(carry)[None]))[0]
        if not bool(analysed.isfinite().all()):
            raise CodecError("expected finite values to encode, got NaN or infinity")
        latents = _rounded(analysed.numpy())
        return [
            segment.encode(latents[part])
            for segment, part in zip(self._segments[:segments], PARTS, strict=False)
        ]

    @torch.inference_mode()
    def decode(self, segments: Sequence[bytes]) -> NDArray[np.float32]:
        """Return a carry (C, h, w), writable, from the first segment or both; channels lie last.

        Raises:
            CodecError: They are not leading segments of a carry, or none.
        """
        if not 1 <= len(segments) <= SEGMENTS:
            raise CodecError(f"expected 1..{SEGMENTS} segments, got {len(segments)}")
        latents = np.zeros((1, *self._latents), np.float32)
        for data, part, (lowest, model, coder) in zip(
            segments, PARTS, self._segments, strict=False
        ):
            latents[0, part] = coder.decode(data, model.shape, model.alphabet)
            latents[0, part] += lowest
        known = _channels_last(torch.from_numpy(latents))
        arrived = self._transform.synthesise(known, (self.shape[1], self.shape[2]))[0]
        carry: NDArray[np.float32] = arrived.numpy()
        return carry

    @classmethod
    @torch.inference_mode()
    def fit(cls, transform: Transform, carries: NDArray[np.float32]) -> Self:
        """Learn the models from training carries (n, C, h, w); weights become 16 bits."""
        transform = copy.deepcopy(transform).half().float()
        latents = _rounded(transform.analyse(torch.from_numpy(carries)).numpy())
        models = []
        for part in PARTS:
            here = latents[:, part]
            lowest, highest = int(here.min()) - MARGIN, int(here.max()) + MARGIN
            alphabet = highest - lowest + 1
            symbols = (here - lowest).astype(symbol_type(alphabet))
            models.append((lowest, ChannelModel.fit(symbols, alphabet)))
        return cls(transform, carries.shape[1:], models)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs; weights as 16 bits."""
        arrays: dict[str, NDArray[Any]] = {
            f"transform.{name}": tensor.half().contiguous().numpy()
            for name, tensor in self._transform.state_dict().items()
        }
        for number, segment in enumerate(self._segments):
            arrays[f"{number}.lowest"] = np.array([segment.lowest])
            for name, array in segment.model.to_arrays().items():
                arrays[f"{number}.{name}"] = array
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays, shape: Shape) -> Self:
        """Make it again for carries of ``shape``.

        Raises:
            CodecError: The arrays do not fit each other or the shape.
            KeyError: One is missing.
            RuntimeError: The transform's are of another form.
        """
        transform = Transform(shape[0])
        weights = {name: torch.from_numpy(a) for name, a in named(arrays, "transform").items()}
        transform.load_state_dict(weights)
        models = []
        for number in range(SEGMENTS):
            own = named(arrays, str(number))
            models.append((int(own["lowest"][0]), ChannelModel.from_arrays(own)))
        return cls(transform.eval().requires_grad_(False), shape, models)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _rounded(latents: NDArray[np.float32]) -> NDArray[np.int64]:
    """To integers, those just behind a border to the nearer one to 0; within what 32 bits hold.

    Small magnitudes are likelier and so take fewer bits, which is worth a little more distance
    (Sullivan, "Efficient Scalar Quantization of Exponential and Laplacian Random Variables", 1996).
    """
    magnitudes = np.floor(np.minimum(np.abs(latents), 2**30) + (0.5 - LEAN))
    return np.copysign(magnitudes, latents).astype(np.int64)
