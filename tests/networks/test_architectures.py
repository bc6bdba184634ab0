from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xpi_ray.networks.architectures import lite12, plain12, plain_lite12, xpi12
from xpi_ray.networks.efficientnet import lite0_body
from xpi_ray.networks.plain import PlainNetwork, PlainTrunkNetwork
from xpi_ray.networks.trunk import TrunkNetwork
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.profiles.measure import count_macs


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (64, 48)])
def test_xpi12_runs_on_small_images(size):
    """Twelve exits for any number of classes; nothing is carried out of the last block."""
    network = XpiNetwork(xpi12(7, size, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))).eval()
    with torch.no_grad():
        exits = network(torch.zeros(2, 3, *size, dtype=torch.uint8))
    assert [tuple(exit_.shape) for exit_ in exits] == [(2, 7)] * 12
    assert network.carry_shape(1)[1:] == (size[0] // 2, size[1] // 2)
    assert network.carry_shape(11)[1:] == (size[0] // 4, size[1] // 4)
    assert network.carry_shape(12)[0] == 0


def test_leaving_early_saves_most_of_the_work():
    """Costs rise with every block, and the first half of them is less than half."""
    macs = count_macs(XpiNetwork(xpi12(10, (32, 32), (0.5,) * 3, (0.2,) * 3)).eval())
    assert all(later > earlier for earlier, later in pairwise(macs))
    assert macs[5] < macs[-1] / 2


def test_lite12_runs_on_small_images():
    """Twelve exits for any number of classes, whatever size the trunk works at."""
    network = TrunkNetwork(lite12(7, (64, 48), trunk_size=64)).eval()
    with torch.no_grad():
        exits = network(torch.zeros(2, 3, 64, 48, dtype=torch.uint8))
    assert [tuple(exit_.shape) for exit_ in exits] == [(2, 7)] * 12
    assert network.carry_shape(1) == (16, 32, 32)
    assert network.carry_shape(12) == (0, 2, 2)


def test_exits_cost_little_beside_the_trunk():
    """Exits take less than 15 % of the trunk's cost, and are spread by it, the first ones early."""
    macs = count_macs(TrunkNetwork(lite12(200, (64, 64))).eval())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        lite0_body().eval()(torch.zeros(1, 3, 128, 128))
    assert macs[-1] < 1.15 * counter.get_total_flops() / 2
    costs = [macs[0], *(later - earlier for earlier, later in pairwise(macs))]
    assert max(costs) < 1.5 * macs[-1] / 12
    assert macs[2] < macs[-1] / 4


COLOURS = (0.5,) * 3, (0.2,) * 3


def test_plain12_has_the_trunk_of_xpi12():
    """Layer by layer as wide and as strided; it reads all channels that the block before made."""
    plain = PlainNetwork(plain12(10, (32, 32), *COLOURS))
    xpi = XpiNetwork(xpi12(10, (32, 32), *COLOURS))
    assert plain.exits == tuple(range(1, 13))
    channels = 3
    for number in range(1, 13):
        ours, theirs = plain.extractor(number), xpi.extractor(number)
        assert ours.conv[0].stride == theirs.conv[0].stride
        assert ours.conv[0].out_channels == theirs.conv[0].out_channels
        assert (ours.stem is None) == (theirs.stem is None)
        assert (ours.stem or ours.conv)[0].in_channels == channels
        assert plain.carry_shape(number)[1:] == xpi.carry_shape(number)[1:]
        channels = ours.conv[0].out_channels
        assert plain.carry_shape(number)[0] == channels


def test_plain_lite12_has_the_trunk_of_lite12():
    """Cut at the same places; it carries the same, and the head's features at the end."""
    plain = PlainTrunkNetwork(plain_lite12(200, (64, 64)))
    lite = TrunkNetwork(lite12(200, (64, 64)))
    assert plain.exits == tuple(range(1, 13))
    assert plain.spec.depths == lite.spec.depths
    for partition in range(12):
        assert plain.carry_shape(partition) == lite.carry_shape(partition)


def test_plain_exits_cost_no_more_than_those_of_xpi():
    """As a share of all multiplications, in which Xpi's fresh channels count as the exits'."""
    plain, xpi = (
        PlainNetwork(plain12(10, (32, 32), *COLOURS)),
        XpiNetwork(xpi12(10, (32, 32), *COLOURS)),
    )
    assert 0.06 < share_of_exits(plain) < share_of_exits(xpi)
    assert share_of_exits(plain.keeping(())) < 0.001
    plain, xpi = (
        PlainTrunkNetwork(plain_lite12(200, (64, 64))),
        TrunkNetwork(lite12(200, (64, 64))),
    )
    assert 0.1 < share_of_exits(plain) < share_of_exits(xpi)


def share_of_exits(network):
    """Multiplications of branches, and of what is made for them only, among all of them."""
    image = torch.zeros(1, 3, *network.image_size, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    exits = sum(
        sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if name.endswith((".branch", ".fresh"))
    )
    return exits / counter.get_total_flops()
