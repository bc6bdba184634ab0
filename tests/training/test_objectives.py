import pytest
import torch
from torch.nn import functional as F

from xpi_ray.training.objectives import JointCrossEntropy, rising_weights


def test_the_loss_is_the_weighted_mean_of_the_exits(network, images):
    """L = Σ w·CE / Σ w, each exit's cross-entropy by itself."""
    labels = torch.arange(12) % 5
    losses = [F.cross_entropy(exit_, labels) for exit_ in network(images)]
    weights = [1.0, 2.0, 3.0, 4.0]
    expected = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / 10
    assert float(JointCrossEntropy(weights)(network, images, labels)) == pytest.approx(
        float(expected)
    )


def test_weights_of_nought_silence_an_exit(network, images):
    """Only the last exit counts where the others weigh nothing."""
    labels = torch.zeros(12, dtype=torch.int64)
    loss = JointCrossEntropy([0, 0, 0, 7])(network, images, labels)
    assert float(loss) == pytest.approx(float(F.cross_entropy(network(images)[-1], labels)))


def test_weights_rise_evenly_to_one():
    """Four weights from 0.4 are a third of the way apart."""
    assert rising_weights(4, 0.4) == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert rising_weights(1, 0.4) == pytest.approx([0.4])
