"""The CIFAR ResNet, a single-exit network that teaches progressive ones.

    images ─► conv ─► 3 stages of n units ─► mean ─► logits

He et al., "Deep Residual Learning for Image Recognition" (CVPR'16), section 4.2, with shortcuts
that have no parameters (option A). Weights go by the names of akamaster/pytorch_resnet_cifar10,
which publishes trained ones.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.errors import DataError

WIDTHS = (16, 32, 64)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of colours, 0..1, that it trained with


class Unit(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.grows = in_channels != channels
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 1 + self.grows, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, C_in, h, w) to (n, C, h, w), or half of h and w where C grows."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features)))))
        if self.grows:
            extra = residual.shape[1] - features.shape[1]
            features = F.pad(features[:, :, ::2, ::2], (0, 0, 0, 0, extra // 2, extra - extra // 2))
        return F.relu(residual + features)


class CifarResNet(nn.Module):
    """ResNet of depth 6n + 2.

    Args:
        units: n, in each of the three stages.
        num_classes: K.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, units: int, num_classes: int = 10) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, -1, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        channels = WIDTHS[0]
        for number, width in enumerate(WIDTHS, start=1):
            stage = [Unit(channels if unit == 0 else width, width) for unit in range(units)]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            channels = width
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images, uint8 (n, 3, 32, 32), to logits (n, K)."""
        normalised = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        features = F.relu(self.bn1(self.conv1(normalised)))
        for number in range(1, len(WIDTHS) + 1):
            features = self.get_submodule(f"layer{number}")(features)
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits

    @classmethod
    def load(cls, path: Path) -> "CifarResNet":
        """Load a trained network, ready to answer, from an ``.npz`` of its weights by name.

        Raises:
            DataError: The file is missing, damaged, or holds another network.
        """
        try:
            with path.open("rb") as opened, np.load(opened) as file:
                weights = {name: torch.from_numpy(file[name]) for name in file.files}
        except Exception as err:  # numpy, zipfile and torch raise all kinds on damage
            raise DataError(f"{path} cannot be read ({err}); expected an .npz of weights") from err
        units = sum(
            name.startswith("layer1.") and name.endswith("conv1.weight") for name in weights
        )
        classes = weights.get("linear.bias", torch.empty(1)).numel()
        network = cls(units, max(classes, 1))
        try:
            network.load_state_dict(weights)
        except RuntimeError as err:
            raise DataError(f"{path} does not hold a CIFAR ResNet: {err}") from err
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.eval().requires_grad_(False)
