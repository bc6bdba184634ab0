"""Costs made by rules that tests know, and a data set of noise."""

import pytest
import torch

from rl.sacd.alexnet import EXITS, LAYERS
from rl.sacd.costs import BITS, Cost, Costs
from rl.sacd.reward import Model
from xpi_ray.training.data import Split, Splits

LAYER_MS = 0.1
CODING_MS = 0.02
EXACT = {1: 0.8, 2: 0.83, 3: 0.87}
LOSS = {4: 0.01, 8: 0.001, 12: 0.0}


@pytest.fixture(scope="session")
def rows():
    """Every layer takes as long; what crosses shrinks with the partition and grows with bits."""
    found = []
    for exit_, layers in zip(EXITS, LAYERS, strict=True):
        found.append(Cost(exit_, layers, 0, layers * LAYER_MS, 0, 0, 0, 0, 0, EXACT[exit_]))
        for partition in range(layers):
            before, after = partition * LAYER_MS, (layers - partition) * LAYER_MS
            for bits in BITS:
                size, accuracy = 6000 * bits / 8 / (1 + partition), EXACT[exit_] - LOSS[bits]
                times = before, after, CODING_MS, CODING_MS
                found.append(Cost(exit_, partition, bits, *times, 24_000, size, accuracy))
    return tuple(found)


@pytest.fixture(scope="session")
def costs(rows):
    """A whole table."""
    return Costs(rows)


@pytest.fixture(scope="session")
def model(costs):
    """The paper's equations over it."""
    return Model(costs)


@pytest.fixture(scope="session")
def noise():
    """A data set of 32 x 32 noise whose two classes differ in brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(192) % 2
    images = torch.randint(0, 128, (192, 3, 32, 32), generator=generator) + 120 * labels.view(
        -1, 1, 1, 1
    )
    split = Split(images.to(torch.uint8), labels)
    few = Split(split.images[:40], labels[:40])
    return Splits("noise", ("dark", "bright"), split, few, few)
