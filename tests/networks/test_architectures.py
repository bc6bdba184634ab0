from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xpi_ray.networks.architectures import lite12, xpi12
from xpi_ray.networks.efficientnet import lite0_body
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
