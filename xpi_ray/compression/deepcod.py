"""A learned encoder and decoder of one partition's carries, as in DeepCOD.

    carry ─► analyse ─► nearest of 8 centres ─► LZW, or 3 bits each ══ link ══► synthesise ─► carry

Yao et al., "Deep Compressive Offloading" (SenSys'20). From its code: the encoder is one strided
convolution, each value becomes one of 8 learned centres, and a decoder of self-attention and
residual upsampling, the heavy part, runs in the cloud. The paper encodes what the offloaded part
of the network takes, so the split is fixed; here that is the carry after one block. Chosen by us:
stride 2 with one upsampling, where theirs is 4 with two, as a carry is small already; the centres
of ``centres.py``; sizes that are odd are padded. Numbers of centres go through LZW, as AgileNN
(MobiCom'22) compresses both systems' output; where that makes more bytes than 3 bits each, these
are sent, in DeepCOD's favour.
"""

import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.compression.centres import Centres, assign, look_up
from xpi_ray.compression.coders import (
    LzwCoder,
    Shape,
    bits_of,
    count_of,
    pack,
    packed_bytes,
    unpack,
)
from xpi_ray.compression.symbol_model import Arrays
from xpi_ray.errors import CodecError

CENTRES = 8
BITS = bits_of(CENTRES)
STRIDE = 2
WIDTH = 64
HARDNESS = 4.0  # of the centres, for their gradient
LZW, PACKED = b"\0", b"\1"  # a payload's first byte: how the rest is coded


class SelfAttention(nn.Module):
    """Of every position with every other, added by a learned share (SAGAN, ICML'19, section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """(n, C, h, w) to the same."""
        query, key, value = (
            part(features).flatten(2) for part in (self.query, self.key, self.value)
        )
        weights = (query.transpose(1, 2) @ key).softmax(2)
        mixed: Tensor = (value @ weights.transpose(1, 2)).reshape(features.shape)
        return features + self.share * mixed


class Upsampling(nn.Module):
    """A residual block that doubles height and width."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.beside = nn.Conv2d(channels, out, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(n, C, h, w) to (n, out, 2h, 2w)."""
        large = F.interpolate(features, scale_factor=STRIDE)
        changed: Tensor = self.second(F.relu(self.first(F.relu(large))))
        beside: Tensor = self.beside(large)
        return beside + changed


class DeepCod(nn.Module):
    """Encoder, centres and decoder of one carry.

    Args:
        carry: Its channels.
        channels: That the encoder leaves, at half the height and width.

    Raises:
        CodecError: It would leave none.
    """

    def __init__(self, carry: int, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise CodecError(f"expected DeepCOD's encoder to leave a channel, got {channels}")
        self.encoder = nn.Conv2d(carry, channels, 2 * STRIDE, STRIDE, padding=STRIDE // 2)
        self.centres = Centres(CENTRES)
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 3, padding=1),
            SelfAttention(WIDTH),
            Upsampling(WIDTH, WIDTH),
            SelfAttention(WIDTH),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, carry, 3, padding=1),
        )

    def forward(self, carry: Tensor) -> Tensor:
        """What arrives of carries (n, C, h, w)."""
        height, width = carry.shape[2:]
        return self.synthesise(self.centres(self.analyse(carry), HARDNESS), (height, width))

    def analyse(self, carry: Tensor) -> Tensor:
        """Carries (n, C, h, w) to latents (n, channels, ⌈h/2⌉, ⌈w/2⌉), not quantised."""
        height, width = carry.shape[2:]
        if height % STRIDE or width % STRIDE:
            carry = F.pad(carry, (0, width % STRIDE, 0, height % STRIDE))
        latents: Tensor = self.encoder(carry)
        return latents

    def synthesise(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents to carries of ``size``: height and width."""
        carry: Tensor = self.decoder(latents)[..., : size[0], : size[1]]
        return carry

    def orthogonality(self) -> Tensor:
        """How far the encoder's filters are from being orthogonal; a scalar."""
        filters = F.normalize(self.encoder.weight.flatten(1), dim=1)
        return (filters @ filters.T - torch.eye(len(filters))).square().sum()


class DeepCodCodec:
    """Codes the carries of one partition; calls from several threads do no harm.

    Args:
        network: Trained; left as it is.

    Raises:
        CodecError: A weight is not finite.
    """

    def __init__(self, network: DeepCod) -> None:
        self._network = copy.deepcopy(network).eval().requires_grad_(False)
        if not all(bool(each.isfinite().all()) for each in self._network.state_dict().values()):
            raise CodecError("expected finite weights of DeepCOD, got NaN or infinity")
        for weight in self._network.parameters():
            if weight.ndim == 4:
                weight.data = _channels_last(weight.data)
        self._centres: NDArray[np.float32] = self._network.centres.ascending().numpy()
        self._lzw = LzwCoder()

    @torch.inference_mode()
    def encode(self, carry: NDArray[np.float32]) -> bytes:
        """Return the payload of a carry (C, h, w).

        Raises:
            CodecError: The carry is not finite.
        """
        latents = self._network.analyse(_channels_last(torch.from_numpy(carry)[None]))[0]
        if not bool(latents.isfinite().all()):
            raise CodecError("expected finite values to encode, got NaN or infinity")
        symbols = assign(latents.numpy(), self._centres)
        compressed, packed = self._lzw.encode(symbols, CENTRES), pack(symbols, BITS)
        return LZW + compressed if len(compressed) < len(packed) else PACKED + packed

    @torch.inference_mode()
    def decode(self, payload: bytes, shape: Shape) -> NDArray[np.float32]:
        """Return a carry of ``shape``, writable; channels lie last.

        Raises:
            CodecError: The payload is none of such a carry.
        """
        symbols = self._symbols(payload, shape)
        latents = _channels_last(torch.from_numpy(look_up(symbols, self._centres))[None])
        carry: NDArray[np.float32] = self._network.synthesise(latents, shape[1:])[0].numpy()
        return carry

    def _symbols(self, payload: bytes, shape: Shape) -> NDArray[np.uint8]:
        """Numbers of centres; what is declared is checked before anything of its size is made."""
        height, width = (-(-size // STRIDE) for size in shape[1:])
        sent = (self._network.encoder.out_channels, height, width)
        mark, data = payload[:1], payload[1:]
        if mark == LZW:
            return self._lzw.decode(data, sent, CENTRES).astype(np.uint8, copy=False)
        if mark != PACKED:
            raise CodecError(f"expected a payload that begins with {LZW!r} or {PACKED!r}")
        count = count_of(sent)
        size_bytes = packed_bytes(count, BITS)
        if len(data) != size_bytes:
            raise CodecError(f"expected {size_bytes} bytes of packed symbols, got {len(data)}")
        return unpack(data, BITS, count).reshape(sent).astype(np.uint8, copy=False)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs."""
        return {
            name: tensor.contiguous().numpy() for name, tensor in self._network.state_dict().items()
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, shape: Shape) -> Self:
        """Make it again for carries of ``shape``.

        Raises:
            CodecError: The weights are not finite, or of no channels.
            KeyError: One of the encoder is missing.
            RuntimeError: They are of another form.
        """
        network = DeepCod(shape[0], arrays["encoder.bias"].size)
        network.load_state_dict({name: torch.from_numpy(each) for name, each in arrays.items()})
        return cls(network)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)
