"""What tests of training share: images that even a tiny network can tell apart, and helpers."""

import pytest
import torch

from xpi_ray.networks.reference import build_reference
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.data import Split, Splits
from xpi_ray.training.references import Reordered, block_features


@pytest.fixture(scope="session")
def separable():
    """Five classes of brightness: 160 images to train on, 40 each to validate and to test."""
    generator = torch.Generator().manual_seed(2)

    def split(n):
        labels = torch.arange(n) % 5
        level = (25 + 50 * labels).view(-1, 1, 1, 1)
        noise = torch.randint(-20, 21, (n, 3, 10, 6), generator=generator)
        return Split((level + noise).to(torch.uint8), labels)

    return Splits("brightness", tuple("abcde"), split(160), split(40), split(40))


@pytest.fixture
def fresh_network(spec):
    """The small network with fresh weights, to be trained."""
    torch.manual_seed(5)
    return XpiNetwork(spec)


@pytest.fixture(scope="session")
def make_reference():
    """Makes a compact network for a block's features, in training mode and not fitted."""

    def make(network, block, seed=0):
        torch.manual_seed(seed)
        channels = network.block(block).spec.channels
        size = network.carry_shape(block)[1:]
        return Reordered(build_reference("compact", channels, size, network.num_classes), channels)

    return make


@pytest.fixture(scope="session")
def accuracy_of():
    """Tells how well a reference network, in eval mode, reads a block's features, 0..1."""

    def accuracy(reference, network, block, split):
        logits = reference(block_features(network, split.images, block))
        return (logits.argmax(1) == split.labels).float().mean().item()

    return accuracy


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without data sets, whose home is empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XPI_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
