"""Named architectures: the specs that the training command offers."""

from xpi_ray.networks.block import BlockSpec
from xpi_ray.networks.xpi import XpiSpec

Colour = tuple[float, float, float]


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
