import numpy as np
import pytest
import torch

from xpi_ray.errors import DataError
from xpi_ray.networks.resnet import CifarResNet
from xpi_ray.training.data import data_folder, take
from xpi_ray.training.trainer import exit_accuracies

PUBLISHED = 0.9173  # of resnet20, on the whole test split


@pytest.fixture
def trained():
    """A tiny network of four classes whose norms' statistics matter, in eval mode."""
    torch.manual_seed(0)
    network = CifarResNet(1, 4).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network


@pytest.fixture
def weights(trained):
    """Its weights by name, as arrays."""
    return {name: value.numpy() for name, value in trained.state_dict().items()}


@pytest.fixture
def photos():
    """Three images of noise, uint8 (3, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 3, 32, 32), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("kept", ["all", "published"])
def test_a_saved_network_answers_as_before(trained, weights, photos, tmp_path, kept):
    """Depth and classes come from the file, which may lack the norms' counters; it is frozen."""
    if kept == "published":
        weights = {name: w for name, w in weights.items() if "num_batches" not in name}
    np.savez(tmp_path / "weights.npz", **weights)
    loaded = CifarResNet.load(tmp_path / "weights.npz")
    with torch.no_grad():
        assert torch.allclose(loaded(photos), trained(photos), atol=1e-5)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def spoil(path, weights, damage):
    """Write a file that is not the weights of such a network."""
    np.savez_compressed(path, **weights)
    content = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes(99) + content[middle + 99 :])
    elif damage == "pickle":
        np.savez(path, weights=np.array([{}], dtype=object))
    elif damage == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "words":
        np.savez(path, **{**weights, "linear.bias": np.array(["a"])})
    else:
        path.unlink()


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flip", "pickle", "array", "words"])
def test_a_file_that_is_no_weights_is_refused(weights, tmp_path, damage):
    """Whatever is wrong with it, the file is named and what was expected is said."""
    path = tmp_path / "weights.npz"
    spoil(path, weights, damage)
    with pytest.raises(DataError, match=r"(?s)weights\.npz cannot be read .*expected an \.npz"):
        CifarResNet.load(path)


@pytest.mark.parametrize("change", ["fewer", "more", "shape", "nothing"])
def test_weights_of_another_network_are_refused(weights, tmp_path, change):
    """Missing, surplus and misshapen weights are named."""
    if change == "fewer":
        del weights["linear.bias"]
    elif change == "more":
        weights["extra"] = np.zeros(1)
    elif change == "shape":
        weights["conv1.weight"] = np.zeros((16, 1, 3, 3))
    else:
        weights.clear()
    np.savez(tmp_path / "weights.npz", **weights)
    with pytest.raises(DataError, match="does not hold a CIFAR ResNet"):
        CifarResNet.load(tmp_path / "weights.npz")


def test_a_published_network_is_as_good_as_published(cifar10):
    """Of the first 1,000 test images resnet20 knows as many as of all, within two points."""
    path = data_folder() / "cifar10_resnet20_akamaster.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    network = CifarResNet.load(path)

    class OneExit(torch.nn.Module):
        """The network in the form of a progressive one."""

        def forward(self, images):
            """Images to a list of one exit."""
            return [network(images)]

    (accuracy,) = exit_accuracies(OneExit(), take(cifar10.test, 1_000), batch_size=100)
    assert accuracy == pytest.approx(PUBLISHED, abs=0.02)
