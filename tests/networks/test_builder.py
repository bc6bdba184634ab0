import pytest
import torch

from xpi_ray.networks.architectures import lite12
from xpi_ray.networks.builder import build
from xpi_ray.networks.trunk import TrunkNetwork


def test_a_spec_makes_its_network(spec, make_network, images):
    """A spec that went through JSON builds a network that the weights of the first one fit."""
    original = make_network(spec)
    built = build("xpi", spec.model_dump(mode="json"))
    built.load_state_dict(original.state_dict())
    for expected, found in zip(original(images), built.eval()(images), strict=True):
        assert torch.equal(found, expected)


def test_a_trunk_network_goes_by_its_own_kind():
    """It comes back from JSON, and the other kind of network refuses its spec."""
    original = TrunkNetwork(lite12(3, (8, 6), trunk_size=32)).eval()
    spec = original.spec.model_dump(mode="json")
    built = build(original.kind, spec).eval()
    built.load_state_dict(original.state_dict())
    images = torch.randint(0, 256, (2, 3, 8, 6), dtype=torch.uint8)
    with torch.no_grad():
        for expected, found in zip(original(images), built(images), strict=True):
            assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="Extra inputs"):
        build("xpi", spec)


def test_an_unknown_kind_is_refused(spec):
    """The message names the kind that came and those that are known."""
    with pytest.raises(ValueError, match=r"'resnet'.*knows: xpi, xpi-trunk"):
        build("resnet", spec.model_dump(mode="json"))


@pytest.mark.parametrize("spec", [None, [], {}, "xpi", {"num_classes": 3}])
def test_a_spec_that_is_none_is_refused(spec):
    """Whatever JSON holds in the spec's place is refused as a value."""
    for kind, name in (("xpi", "XpiSpec"), ("xpi-trunk", "TrunkSpec")):
        with pytest.raises(ValueError, match=name):
            build(kind, spec)
