import pytest
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from xpi_ray.networks.backbones import AlexNet, ResNet50, Vgg16

BACKBONES = [AlexNet, Vgg16, ResNet50]


def weights_of(kind):
    """How many of each kind of layer's weights a backbone of full width has, biases aside."""
    with torch.device("meta"):
        network = kind(10)
    return {
        layer: sum(
            module.weight.numel() for module in network.modules() if isinstance(module, layer)
        )
        for layer in (nn.Conv2d, nn.Linear)
    }


def multiplications(kind):
    """Multiply-accumulates of a backbone of full width on one image of 32x32."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        kind(10).eval()(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops() // 2


def test_sizes_are_those_of_a_hand_count():
    """AlexNet's by its layers; VGG-16's and ResNet-50's as they are often told."""
    convolutions = 25 * (3 * 32 + 32 * 64) + 9 * (64 * 96 + 96 * 96 + 96 * 64)
    linear = 1024 * 256 + 256 * 128 + 128 * 10
    assert weights_of(AlexNet) == {nn.Conv2d: convolutions, nn.Linear: linear}
    assert weights_of(Vgg16) == {nn.Conv2d: 14_710_464, nn.Linear: 5_120}
    # The ImageNet network has 25,557,032 with 1,000 classes, norms and a stem of 7x7.
    convolutions = 25_557_032 - 2_049_000 - 53_120 - 64 * 3 * (49 - 9)
    assert weights_of(ResNet50) == {nn.Conv2d: convolutions, nn.Linear: 20_480}


def test_costs_are_those_often_told():
    """For 32x32 pixels: VGG-16 313 million multiplications, ResNet-50 1.3 billion."""
    first = 32 * 32 * 25 * 3 * 32 + 16 * 16 * 25 * 32 * 64
    rest = 8 * 8 * 9 * (64 * 96 + 96 * 96 + 96 * 64)
    assert multiplications(AlexNet) == first + rest + 1024 * 256 + 256 * 128 + 128 * 10
    assert multiplications(Vgg16) == pytest.approx(313e6, rel=0.01)
    assert multiplications(ResNet50) == pytest.approx(1.3e9, rel=0.02)


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (64, 48), (10, 6)])
def test_they_run_on_images_of_any_size(kind, size):
    """Those of all the data sets, and smaller and uneven ones."""
    network = kind(7, 0.1).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, *size)).shape == (2, 7)


@pytest.mark.parametrize("kind", BACKBONES)
def test_width_multiplies_channels_alone(kind):
    """A narrower network has the same layers; images and logits are as they were."""
    with torch.device("meta"):
        whole, half = (
            [module for module in kind(10, width).modules() if hasattr(module, "weight")]
            for width in (1.0, 0.5)
        )
    for wide, narrow in zip(whole, half, strict=True):
        assert type(wide) is type(narrow)
        shapes = zip(wide.weight.shape[:2], narrow.weight.shape[:2], strict=True)
        assert all(b in (a // 2, 3, 10) for a, b in shapes)
        assert wide.weight.shape[2:] == narrow.weight.shape[2:]


@pytest.mark.parametrize("kind", BACKBONES)
def test_they_are_plain_enough_to_be_traced(kind):
    """Only layers of torch.nn and additions; every convolution is followed by its norm."""
    traced = fx.symbolic_trace(kind(10, 0.1))
    nodes = [node for node in traced.graph.nodes if node.op not in ("placeholder", "output")]
    for node in nodes:
        assert node.op == "call_module" or node.target.__name__ == "add"
    layers = {node: traced.get_submodule(node.target) for node in nodes if node.op == "call_module"}
    for node, layer in layers.items():
        assert type(layer).__module__.startswith("torch.nn.modules")
        if isinstance(layer, nn.Conv2d):
            assert [type(layers[user]) for user in node.users] == [nn.BatchNorm2d]
