"""Networks as a training begins with them: fresh, on pretrained features, or with a run's weights.

name ─► Architecture ─► build(splits) ─► network ─► load_weights(folder), if asked ─► trainer
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from xpi_ray.bundle import SUMS, Bundle
from xpi_ray.compression.builder import CodecName
from xpi_ray.errors import TrainingError
from xpi_ray.networks.architectures import lite12, plain12, plain_lite12, xpi12
from xpi_ray.networks.bundled import BundledNetwork
from xpi_ray.networks.efficientnet import imagenet_weights
from xpi_ray.networks.plain import PlainNetwork, PlainTrunkNetwork
from xpi_ray.networks.trunk import OnTrunk, TrunkNetwork
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.networks.zoo import ZOO, Build
from xpi_ray.training.data import Splits
from xpi_ray.training.trainer import read_weights

FROZEN_BLOCKS = 8  # of the trunk; later ones hold most weights and little of the cost


class Architecture(NamedTuple):
    """How a network is made, and what trains it best."""

    build: Callable[[Splits], BundledNetwork]
    """Makes one for a data set.

    Raises:
        TrainingError: The weights of its trunk are not installed.
    """
    training: str
    """Name of a recipe."""
    peak_learning_rate: float
    codec: CodecName = "ladder"
    """What its bundle codes carries by."""


def _xpi12(splits: Splits) -> XpiNetwork:
    images = splits.train.images
    return XpiNetwork(xpi12(len(splits.classes), _size(images), *colour_statistics(images)))


def _lite12(splits: Splits) -> XpiNetwork:
    network = TrunkNetwork(lite12(len(splits.classes), _size(splits.train.images)))
    _begin_with_photos(network)
    return network


def _plain12(splits: Splits) -> PlainNetwork:
    images = splits.train.images
    return PlainNetwork(plain12(len(splits.classes), _size(images), *colour_statistics(images)))


def _plain_lite12(splits: Splits) -> PlainNetwork:
    network = PlainTrunkNetwork(plain_lite12(len(splits.classes), _size(splits.train.images)))
    _begin_with_photos(network)
    return network


def _begin_with_photos(network: OnTrunk) -> None:
    """Give the trunk its ImageNet weights, and keep the first blocks' as they are."""
    network.load_trunk(imagenet_weights())
    network.freeze_trunk(FROZEN_BLOCKS)


def _zoo(build: Build) -> Architecture:
    """One of EINet's networks.

    The ladder learns models that grow with the square of the channels, of which these have up to
    2,048, or many more where there are several scales; SPINN's codec learns none.
    """

    def made(splits: Splits) -> BundledNetwork:
        images = splits.train.images
        return build(len(splits.classes), _size(images), *colour_statistics(images))

    return Architecture(made, "plain_joint", 0.1, "shuffled_lz4")


def _single(build: Callable[[Splits], PlainNetwork]) -> Callable[[Splits], PlainNetwork]:
    """The network with its last exit only."""
    return lambda splits: build(splits).keeping(())


ARCHITECTURES = {
    "xpi12": Architecture(_xpi12, "distilled_quantized", 0.2),
    # Its channels cannot be mapped. Fresh parts learn fast, the trunk at a small share of the rate.
    "lite12": Architecture(_lite12, "plain_joint", 0.6),
    "plain12": Architecture(_plain12, "plain_joint", 0.2),
    "plain_lite12": Architecture(_plain_lite12, "plain_joint", 0.6),
    "single12": Architecture(_single(_plain12), "plain_joint", 0.2),
    "single_lite12": Architecture(_single(_plain_lite12), "plain_joint", 0.6),
    **{name: _zoo(build) for name, build in ZOO.items()},
}


def find_architecture(name: str, width: float = 1.0) -> Architecture:
    """The architecture of that name.

    Args:
        name: Of ``ARCHITECTURES``.
        width: Multiplies channels, of those in the ``ZOO`` only.

    Raises:
        TrainingError: There is none, or it has one width only.
    """
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise TrainingError(f"unknown architecture {name!r}; expected one of {known}")
    if width == 1:
        return ARCHITECTURES[name]
    if name not in ZOO or not 0 < width < 1:
        raise TrainingError(
            f"expected a width above 0 and up to 1, and other than 1 for {', '.join(ZOO)} only; "
            f"got {width} for {name}"
        )
    return _zoo(partial(ZOO[name], width=width))


def load_weights(network: nn.Module, folder: Path) -> None:
    """Give the network the weights of a run or of a bundle.

    Raises:
        BundleError: The bundle in the folder is not in order.
        DataError: There is neither bundle nor checkpoint in the folder.
        TrainingError: It is another network's.
    """
    bundled = (folder / SUMS).is_file()
    weights = Bundle.load(folder).network.state_dict() if bundled else read_weights(folder)
    try:
        network.load_state_dict(weights)
    except RuntimeError as err:  # missing names or other shapes
        raise TrainingError(f"{folder} holds another network than this one: {err}") from err


def weights_digest(network: nn.Module) -> str:
    """Tells a network's weights from all others'."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def colour_statistics(
    images: Tensor,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each colour, 0..1, of uint8 images (n, 3, H, W)."""
    pixels = images.transpose(0, 1).flatten(1).double() / 255  # (3, n·H·W)
    mean, std = pixels.mean(1).tolist(), pixels.std(1).tolist()
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]
