"""The multi-exit networks that EINet (ICDCS'23) is measured on, by name.

name ─► ZOO ─► a backbone with exits attached, or an MSDNet ─► training

How many exits each has is from EINet's slides. Where they are, and the sizes of the MSDNets, is not
told there and chosen by us; so are branches, which are those of ``attach_exits`` throughout.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import nn

from xpi_ray.networks.attach import attach_exits
from xpi_ray.networks.backbones import AlexNet, ResNet50, Vgg16, scaled
from xpi_ray.networks.branched import BranchedNetwork
from xpi_ray.networks.bundled import Colour
from xpi_ray.networks.msdnet import MsdNetwork, MsdSpec


class Build(Protocol):
    """Makes a network with fresh weights."""

    def __call__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        mean: Colour,
        std: Colour,
        width: float = 1.0,
    ) -> BranchedNetwork | MsdNetwork:
        """Return the network.

        Args:
            num_classes: K.
            image_size: H and W.
            mean: Mean of each colour over the training images, pixels scaled to 0..1.
            std: Standard deviation of each colour, likewise.
            width: Multiplies channels; 1 is as published.
        """
        ...


def _attached(
    backbone: Callable[[int, float], nn.Module], exits: Sequence[int] | int | None
) -> Build:
    """A backbone with exits, which are told as ``attach_exits`` takes them."""

    def build(
        num_classes: int,
        image_size: tuple[int, int],
        mean: Colour,
        std: Colour,
        width: float = 1.0,
    ) -> BranchedNetwork:
        return attach_exits(
            backbone(num_classes, width),
            num_classes=num_classes,
            image_size=image_size,
            mean=mean,
            std=std,
            exits=exits,
        )

    return build


def _msdnet(blocks: int) -> Build:
    """An MSDNet with three scales, and sizes as in the authors' code for CIFAR.

    The first block has 4 layers and each later one a single layer, so that 21 blocks have the 24
    layers of the authors' network for anytime prediction, whose blocks have two.
    """

    def build(
        num_classes: int,
        image_size: tuple[int, int],
        mean: Colour,
        std: Colour,
        width: float = 1.0,
    ) -> MsdNetwork:
        spec = MsdSpec(
            num_classes=num_classes,
            image_size=image_size,
            mean=mean,
            std=std,
            blocks=blocks,
            base=4,
            channels=scaled(16, width),
            growth=scaled(6, width),
            scales=(1, 2, 4),
            bottlenecks=(1, 2, 4),
            reduction=0.5,
            exit_channels=scaled(128, width),
        )
        return MsdNetwork(spec)

    return build


ZOO: Mapping[str, Build] = {
    "b_alexnet": _attached(
        AlexNet, (2, 3)
    ),  # 3 exits; the first two where BranchyNet's code has them
    "flex_vgg16": _attached(Vgg16, 5),
    "vgg16": _attached(Vgg16, None),  # 14 exits: after every convolution, and the backbone's own
    "resnet50": _attached(ResNet50, 6),
    "msdnet21": _msdnet(21),
    "msdnet40": _msdnet(40),
}
