"""Named architectures: the specs that the training command offers."""

from xpi_ray.networks.block import BlockSpec
from xpi_ray.networks.bundled import Colour
from xpi_ray.networks.efficientnet import PIXEL_MEAN, PIXEL_STD
from xpi_ray.networks.plain import (
    ExitSpec,
    PlainBlockSpec,
    PlainSpec,
    PlainTrunkSpec,
)
from xpi_ray.networks.trunk import TrunkSpec, trunk_parts
from xpi_ray.networks.xpi import XpiSpec


def xpi12(num_classes: int, image_size: tuple[int, int], mean: Colour, std: Colour) -> XpiSpec:
    """Twelve blocks for small images: half resolution from block 1, a quarter from block 4.

    Most multiplications go to the later blocks, so that an early exit saves most of them; blocks
    stay at a quarter of the resolution to the end, for coarser ones stop improving on CIFAR-10.
    The last block reads all its features, as no block is left to carry any to.
    """
    early = {"channels": 44, "branch_channels": 12, "branch_widths": (32, 64)}
    middle = {"channels": 80, "branch_channels": 16, "branch_widths": (64,)}
    late = {"channels": 100, "branch_channels": 20, "branch_widths": (64,)}
    blocks = [
        {**early, "stem_channels": 16, "stride": 2},
        early,
        early,
        {**middle, "stride": 2},
        middle,
        middle,
        middle,
        late,
        late,
        late,
        late,
        {"channels": 100, "branch_channels": 100},
    ]
    return XpiSpec(
        num_classes=num_classes,
        image_size=image_size,
        mean=mean,
        std=std,
        blocks=tuple(BlockSpec.model_validate(block) for block in blocks),
    )


def lite12(num_classes: int, image_size: tuple[int, int], trunk_size: int = 128) -> TrunkSpec:
    """Twelve blocks on EfficientNet-Lite0, for data sets with few images.

    Cuts lie where every exit adds about a twelfth of the trunk's cost, less before the early ones.
    All that is not the trunk's costs about a seventh of it.

    Args:
        num_classes: K.
        image_size: Height and width of the data set's images.
        trunk_size: Height and width to which they are scaled; costs grow with its square.
    """
    depths = (2, 1, 1, 2, 2, 2, 1, 1, 1, 1, 2, 2)
    branches = [  # k and the widths of the strided convolutions
        (4, (8, 16, 32)),
        (6, (16, 32)),
        (6, (16, 32)),
        (10, (32, 64)),
        (16, (64,)),
        *[(20, (64,))] * 3,
        *[(40, (128,))] * 3,
    ]
    *parts, last = trunk_parts(depths)
    blocks = [
        BlockSpec(
            channels=k + part.channels, branch_channels=k, stride=part.stride, branch_widths=widths
        )
        for part, (k, widths) in zip(parts, branches, strict=True)
    ]
    return TrunkSpec(
        num_classes=num_classes,
        image_size=image_size,
        mean=(PIXEL_MEAN,) * 3,
        std=(PIXEL_STD,) * 3,
        blocks=(*blocks, BlockSpec(channels=last.channels, branch_channels=last.channels)),
        trunk_size=trunk_size,
        depths=depths,
    )


def plain12(num_classes: int, image_size: tuple[int, int], mean: Colour, std: Colour) -> PlainSpec:
    """The trunk of ``xpi12``, all features handed on, and an exit of its own after every block.

    Exits take 6.5 % of the multiplications, as those of ``xpi12`` do.
    """
    trunk = xpi12(num_classes, image_size, mean, std)
    early, later = ExitSpec(widths=(16, 64)), ExitSpec(squeezed=16, widths=(64,))
    exits = (*[early] * 3, *[later] * 8, ExitSpec())
    blocks = tuple(
        PlainBlockSpec(
            channels=block.channels,
            stride=block.stride,
            stem_channels=block.stem_channels,
            exit=exit_,
        )
        for block, exit_ in zip(trunk.blocks, exits, strict=True)
    )
    return PlainSpec(**{**dict(trunk), "blocks": blocks})


def plain_lite12(
    num_classes: int, image_size: tuple[int, int], trunk_size: int = 128
) -> PlainTrunkSpec:
    """The trunk of ``lite12``, cut alike, and an exit of its own after every block.

    Args:
        num_classes: K.
        image_size: Height and width of the data set's images.
        trunk_size: Height and width to which they are scaled.
    """
    trunk = lite12(num_classes, image_size, trunk_size)
    widths = ((12, 24, 48), *[(16, 32, 64)] * 2, (40, 64), (80,), *[(96,)] * 3, *[(160,)] * 3, ())
    blocks = tuple(
        PlainBlockSpec(channels=part.channels, stride=part.stride, exit=ExitSpec(widths=each))
        for part, each in zip(trunk_parts(trunk.depths), widths, strict=True)
    )
    return PlainTrunkSpec(**{**dict(trunk), "blocks": blocks})
