import time

import numpy as np
import pytest
import torch

from xpi_ray.elastic.measure import exit_logits, logits_with_skips, measure_costs
from xpi_ray.networks.progressive import ProgressiveNetwork, State


class Sleeper(ProgressiveNetwork):
    """Blocks and exits that take known times; block 2 has no exit."""

    num_classes = 3
    image_size = (4, 4)
    fuses = False
    block_s, exit_s = (0.002, 0.004, 0.001), (0.001, 0.0, 0.003)

    @property
    def num_blocks(self):
        return 3

    @property
    def exits(self):
        return (1, 3)

    def carry_shape(self, partition):
        return (3, 4, 4)

    def skip_exit(self, state, block):
        time.sleep(self.block_s[block - 1])
        return State(state.carry, torch.empty(len(state.carry), 0))

    def advance(self, state, block):
        after = self.skip_exit(state, block)
        if block not in self.exits:
            return after
        time.sleep(self.exit_s[block - 1])
        return State(state.carry, state.carry[:, :, 0, 0].float() * block)


@pytest.fixture
def images():
    return torch.randint(0, 256, (7, 3, 4, 4), dtype=torch.uint8)


def test_costs_are_those_of_blocks_and_exits(images):
    """Sleeping blocks and exits are told apart; where no exit is, it would take for ever."""
    costs = measure_costs(Sleeper(), images, repeats=9)
    assert (costs.block_ms[:2] > [1.9, 3.9]).all()
    assert costs.exit_ms[0] > 0
    assert costs.exit_ms[1] == np.inf
    assert costs.exit_ms[2] > 3.9  # with its block, which is never run alone


def test_logits_are_those_of_a_run_of_all_blocks(images):
    """Every exit's logits of every image come in the order of images and exits."""
    found = exit_logits(Sleeper(), images)
    assert found.shape == (7, 2, 3)
    assert (found[:, 1] == 3 * found[:, 0]).all()
    assert (found[:, 0] == images[:, :, 0, 0].numpy()).all()


@torch.inference_mode()
def test_exits_are_told_as_they_are_after_those_that_ran(network, images):
    """Of every image: the exits that ran, and what each says behind those before it."""
    images = torch.randint(256, (40, 3, *network.image_size), dtype=torch.uint8)
    found, ran = logits_with_skips(network, images)
    assert found.shape == (40, len(network.exits), network.num_classes)
    assert {0, 1} == set(np.unique(ran.any(1)))
    for image, logits, runs in zip(images, found, ran, strict=True):
        state = network.start(image[None])
        for block in range(1, network.num_blocks + 1):
            after = network.advance(state, block)
            assert np.allclose(after.logits[0].numpy(), logits[block - 1], atol=1e-4)
            state = after if runs[block - 1] else network.skip_exit(state, block)
