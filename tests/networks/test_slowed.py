from types import SimpleNamespace

import pytest
import torch

from xpi_ray.networks import slowed
from xpi_ray.networks.slowed import SlowedNetwork


@pytest.mark.parametrize("wrapped", ["network", "plain_network"])
def test_a_slowed_network_answers_as_the_wrapped_one(wrapped, images, request):
    """Shapes, sizes and every logit are the wrapped network's."""
    network = request.getfixturevalue(wrapped)
    weak = SlowedNetwork(network, 1.5)
    assert (weak.num_blocks, weak.num_classes) == (network.num_blocks, network.num_classes)
    assert (weak.image_size, weak.fuses) == (network.image_size, network.fuses)
    assert weak.exits == network.exits
    assert [weak.carry_shape(p) for p in range(5)] == [network.carry_shape(p) for p in range(5)]
    for expected, found in zip(network(images), weak(images), strict=True):
        assert torch.equal(found, expected)


def test_each_block_waits_in_proportion(network, images, monkeypatch):
    """A block of 10 ms on a machine 4 times weaker sleeps 30 ms more."""
    readings, naps = iter([1.0, 1.01]), []
    fake = SimpleNamespace(perf_counter=lambda: next(readings), sleep=naps.append)
    monkeypatch.setattr(slowed, "time", fake)
    weak = SlowedNetwork(network, 4.0)
    weak.advance(weak.start(images), 1)
    (nap,) = naps
    assert round(nap, 9) == 0.03
