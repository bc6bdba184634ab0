import pytest
import torch

from xpi_ray.networks.builder import build


def test_a_spec_makes_its_network(spec, make_network, images):
    """A spec that went through JSON builds a network that the weights of the first one fit."""
    original = make_network(spec)
    built = build("xpi", spec.model_dump(mode="json"))
    built.load_state_dict(original.state_dict())
    for expected, found in zip(original(images), built.eval()(images), strict=True):
        assert torch.equal(found, expected)


def test_an_unknown_kind_is_refused(spec):
    """The message names the kind that came and those that are known."""
    with pytest.raises(ValueError, match=r"'resnet'.*knows: xpi"):
        build("resnet", spec.model_dump(mode="json"))


@pytest.mark.parametrize("spec", [None, [], {}, "xpi", {"num_classes": 3}])
def test_a_spec_that_is_none_is_refused(spec):
    """Whatever JSON holds in the spec's place is refused as a value."""
    with pytest.raises(ValueError, match="XpiSpec"):
        build("xpi", spec)
