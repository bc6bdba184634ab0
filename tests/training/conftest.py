"""Images that even a tiny network can tell apart."""

import pytest
import torch

from xpi_ray.training.data import Split, Splits


@pytest.fixture(scope="session")
def separable():
    """Five classes of brightness: 160 images to train on, 40 each to validate and to test."""
    generator = torch.Generator().manual_seed(2)

    def split(n):
        labels = torch.arange(n) % 5
        level = (25 + 50 * labels).view(-1, 1, 1, 1)
        noise = torch.randint(-20, 21, (n, 3, 10, 6), generator=generator)
        return Split((level + noise).to(torch.uint8), labels)

    return Splits("brightness", tuple("abcde"), split(160), split(40), split(40))
