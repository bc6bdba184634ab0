"""A learned transform: from a carry to few latents, and back to one that is as good to go on from.

    carry (C, h, w) ─► analyse ─► latents (16, h/2, w/2) ─► round ══ link ══► synthesise ─► carry

Latents come in the order of their importance: in training the later ones are often left out
(nested dropout: Rippel et al., "Learning Ordered Representations", ICML'14), so the first few make
a carry too. Analysis and synthesis by strided convolutions, unit steps, and a rate to train for
are those of Ballé et al., "End-to-end Optimized Image Compression" (ICLR'17); one convolution at
the edge and more at the cloud is DeepCOD's asymmetry (Yao et al., SenSys'20).
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LATENTS = 16
WIDTH = 64  # channels of the synthesis
STRIDE = 2
LEAST_SCALE = 0.05  # of a channel, to that of the whole carry, so that dead ones do no harm


class Residual(nn.Module):
    """Two convolutions beside an identity path."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        """(n, C, h, w) to the same."""
        changed: Tensor = self.second(F.relu(self.first(F.relu(features))))
        return features + changed


class Transform(nn.Module):
    """Of the carries of one partition.

    Args:
        channels: C.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        self.analysis = nn.Conv2d(channels, LATENTS, 2 * STRIDE, STRIDE, padding=STRIDE // 2)
        self.synthesis = nn.Sequential(
            nn.Conv2d(LATENTS, WIDTH, 3, padding=1),
            Residual(WIDTH),
            nn.ConvTranspose2d(WIDTH, channels, 2 * STRIDE, STRIDE, padding=STRIDE // 2),
            Residual(channels),
        )

    @torch.no_grad()
    def normalise(self, carry: Tensor) -> Self:
        """Take each channel's mean and scale over carries (n, C, h, w) for those of all."""
        self.mean.copy_(carry.mean((0, 2, 3))[:, None, None])
        least = float(LEAST_SCALE * carry.std()) or 1.0
        self.scale.copy_(carry.std((0, 2, 3)).clamp_min(least)[:, None, None])
        return self

    def analyse(self, carry: Tensor) -> Tensor:
        """Carries (n, C, h, w) to latents (n, 16, ⌈h/2⌉, ⌈w/2⌉), not rounded."""
        height, width = carry.shape[2:]
        even = (carry - self.mean) / self.scale
        if height % STRIDE or width % STRIDE:
            even = F.pad(even, (0, width % STRIDE, 0, height % STRIDE))
        latents: Tensor = self.analysis(even)
        return latents

    def synthesise(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents, 0 where they are not known, to carries of ``size``: height and width."""
        carry: Tensor = self.synthesis(latents)[..., : size[0], : size[1]]
        return carry * self.scale + self.mean


def latent_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """That of the latents of a carry of ``shape`` (C, h, w)."""
    return (LATENTS, -(-shape[1] // STRIDE), -(-shape[2] // STRIDE))
