from itertools import pairwise

import pytest
import torch

from xpi_ray.networks.builder import build
from xpi_ray.networks.zoo import ZOO
from xpi_ray.profiles.measure import count_macs

EXITS = {
    "b_alexnet": 3,
    "flex_vgg16": 5,
    "vgg16": 14,
    "resnet50": 6,
    "msdnet21": 21,
    "msdnet40": 40,
}
COLOURS = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module", params=ZOO)
def named(request):
    """A name, and its network at a twentieth of the width, in eval mode."""
    torch.manual_seed(0)
    network = ZOO[request.param](7, (32, 32), *COLOURS, width=0.05)
    return request.param, network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def noise():
    """Two images of noise."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)


def test_exits_are_as_many_as_on_the_slides(named):
    """EINet's numbers; every block has one."""
    name, network = named
    assert network.num_blocks == EXITS[name]
    assert network.exits == tuple(range(1, EXITS[name] + 1))
    assert not network.fuses


def test_each_keeps_the_contract(named, noise):
    """Carries are as said, blocks one by one make the same exits, and skipped ones change none."""
    _, network = named
    told = network(noise)
    assert network.carry_shape(0) == (3, 32, 32)
    state = skipping = network.start(noise)
    for block, expected in enumerate(told, start=1):
        state = network.advance(state, block)
        assert state.carry.shape == (2, *network.carry_shape(block))
        assert state.logits.shape == (2, 7)
        assert torch.allclose(state.logits, expected, atol=1e-5)
        if block < network.num_blocks:
            skipping = network.skip_exit(skipping, block)
            assert skipping.logits.shape == (2, 0)
            assert torch.equal(skipping.carry, state.carry)
    assert torch.equal(network.advance(skipping, network.num_blocks).logits, state.logits)


def test_each_comes_back_from_its_spec(named, noise):
    """Through JSON; and what is made ready to serve agrees with it."""
    _, network = named
    built = build(network.kind, network.spec.model_dump(mode="json")).eval()
    built.load_state_dict(network.state_dict())
    prepared = built.prepare()
    for expected, found in zip(network(noise), prepared(noise), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ZOO)
def test_each_takes_digits(name):
    """Images of 28x28, ten classes."""
    network = ZOO[name](10, (28, 28), *COLOURS, width=0.05).eval()
    with torch.no_grad():
        exits = network(torch.zeros(1, 3, 28, 28, dtype=torch.uint8))
    assert [tuple(exit_.shape) for exit_ in exits] == [(1, 10)] * EXITS[name]


def test_msdnet21_has_the_layers_of_the_authors():
    """24, as theirs for CIFAR, which widen by 6, 12 and 24 channels from 16, 32 and 64."""
    spec = ZOO["msdnet21"](10, (32, 32), *COLOURS).spec
    assert (spec.ends[0], spec.ends[-1]) == (4, 24)
    assert [spec.growth * factor for factor in spec.scales] == [6, 12, 24]
    assert spec.widths == [16, 32, 64]


def test_first_exits_of_msdnets_cost_little():
    """Less than a tenth of the whole; costs rise with every block."""
    macs = count_macs(ZOO["msdnet21"](10, (32, 32), *COLOURS).eval())
    assert all(later > earlier for earlier, later in pairwise(macs))
    assert macs[0] < macs[-1] / 10
