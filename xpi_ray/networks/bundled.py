"""What networks have in common that a bundle can hold: a kind, a spec, and normalised pixels.

manifest: kind, spec ─► network with fresh weights ◄─ weights.safetensors
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from xpi_ray.config import Frozen
from xpi_ray.networks.block import FoldableConv
from xpi_ray.networks.progressive import ProgressiveNetwork

IMAGE_CHANNELS = 3
Colour = tuple[float, float, float]


class NetworkSpec(Frozen):
    """What every spec has; a network's own holds all that fixes it but its kind and its weights."""

    num_classes: int = Field(ge=2)
    image_size: tuple[int, int]
    """Height and width."""
    mean: Colour
    """Mean of each colour over the training images, pixels scaled to 0..1."""
    std: Colour
    """Standard deviation of each colour, likewise."""


class BundledNetwork(ProgressiveNetwork):
    """A network that a spec fixes but for its weights."""

    kind: ClassVar[str]
    """What a bundle's manifest calls this kind of network."""
    spec: NetworkSpec
    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.num_classes = spec.num_classes
        self.image_size = spec.image_size
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(1, -1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(spec.std).view(1, -1, 1, 1))

    def normalised(self, images: Tensor) -> Tensor:
        """Pixels, uint8 (n, 3, H, W), as float32 with the spec's mean and deviation taken out."""
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def pretrained(self) -> list[nn.Module]:
        """Parts with weights from elsewhere, which a training should change slowly; here none."""
        return []

    def thaw(self) -> None:
        """Make all blocks trainable again, after a training that froze them in turn."""
        self.requires_grad_(True)

    def prepare(self) -> Self:
        """Make the network ready to serve, in place: norms folded, channels last."""
        super().prepare()
        for module in self.modules():
            if isinstance(module, FoldableConv):
                module.fold()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self
