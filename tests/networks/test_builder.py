import pytest
import torch

from xpi_ray.networks.architectures import lite12, plain_lite12
from xpi_ray.networks.builder import build
from xpi_ray.networks.plain import PlainTrunkNetwork
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


def test_a_plain_network_comes_back_with_the_exits_that_it_kept(plain_spec, make_network, images):
    """Through JSON, the exits that were dropped too."""
    for spec in (plain_spec, plain_spec.keeping(())):
        original = make_network(spec)
        built = build("plain", spec.model_dump(mode="json")).eval()
        built.load_state_dict(original.state_dict())
        assert built.exits == spec.exits
        for expected, found in zip(original(images), built(images), strict=True):
            assert torch.equal(found, expected)


def test_a_plain_trunk_network_goes_by_its_own_kind():
    """It comes back from JSON, and the other kinds refuse its spec."""
    spec = plain_lite12(3, (8, 6), trunk_size=32).keeping({2, 5}).model_dump(mode="json")
    built = build(PlainTrunkNetwork.kind, spec)
    assert isinstance(built, PlainTrunkNetwork)
    assert built.exits == (2, 5, 12)
    for kind in ("xpi", "xpi-trunk", "plain"):
        with pytest.raises(ValueError, match="Extra inputs"):
            build(kind, spec)


def test_an_unknown_kind_is_refused(spec):
    """The message names the kind that came and those that are known."""
    with pytest.raises(ValueError, match=r"'resnet'.*knows: xpi, xpi-trunk, plain, plain-trunk"):
        build("resnet", spec.model_dump(mode="json"))


@pytest.mark.parametrize("spec", [None, [], {}, "xpi", {"num_classes": 3}])
def test_a_spec_that_is_none_is_refused(spec):
    """Whatever JSON holds in the spec's place is refused as a value."""
    kinds = {"xpi": "XpiSpec", "xpi-trunk": "TrunkSpec", "plain": "PlainSpec"}
    for kind, name in {**kinds, "plain-trunk": "PlainTrunkSpec"}.items():
        with pytest.raises(ValueError, match=name):
            build(kind, spec)
