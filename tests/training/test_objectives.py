import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from xpi_ray.training.objectives import (
    FIRST_EXIT_WEIGHT,
    CrossEntropy,
    Distilled,
    Joint,
    rising_weights,
)

LABELS = torch.arange(12) % 5


@pytest.fixture
def exits():
    """Three exits of twelve samples and five classes, as leaves of the graph."""
    generator = torch.Generator().manual_seed(0)
    return [(3 * torch.randn(12, 5, generator=generator)).requires_grad_() for _ in range(3)]


class Teacher(nn.Module):
    """Looks at the first five pixels, and is not frozen."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(5, 5)

    def forward(self, images):
        """Images (n, 3, H, W) to logits (n, 5)."""
        return self.classifier(images.flatten(1)[:, :5] / 64)


@pytest.fixture
def teacher():
    """A teacher whose answers differ from image to image."""
    torch.manual_seed(3)
    return Teacher()


def test_the_loss_is_the_weighted_mean_of_the_exits(network, images):
    """L = Σ w·CE / Σ w, each exit's cross-entropy by itself, with weights from 0.3 to 1."""
    losses = [F.cross_entropy(exit_, LABELS) for exit_ in network(images)]
    weights = [0.3 + 0.7 * step / 3 for step in range(4)]
    expected = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    assert float(Joint(CrossEntropy())(network, images, LABELS)) == pytest.approx(float(expected))


def test_the_prediction_loss_judges_every_exit(network, images):
    """What it says of an exit counts with that exit's weight; it sees the images and labels."""

    def last_only(exits, seen_images, seen_labels):
        assert seen_images is images
        assert seen_labels is LABELS
        return torch.tensor([0.0] * (len(exits) - 1) + [7.0])

    loss = Joint(last_only)(network, images, LABELS)
    assert float(loss) == pytest.approx(7 * float(rising_weights(4)[-1]))


def test_a_plain_objective_trains_the_network_alone():
    """It has nothing of its own for the trainer, and no centres for the bundle."""
    objective = Joint(CrossEntropy())
    assert objective.trained() == []
    assert objective.centres() == {}


@given(count=st.integers(2, 30))
def test_weights_rise_evenly(count):
    """They add up to 1, their steps are alike, and the last is 1/0.3 times the first."""
    weights = rising_weights(count).double()
    assert float(weights.sum()) == pytest.approx(1)
    assert weights.diff().numpy() == pytest.approx(float(weights.diff()[0]), abs=1e-6)
    assert float(weights[0] / weights[-1]) == pytest.approx(FIRST_EXIT_WEIGHT)


def test_a_single_exit_has_all_the_weight():
    """One weight is 1."""
    assert rising_weights(1).tolist() == [1]


def divergence(taught, learnt, temperature):
    """T²·KL(teacher ‖ exit) of answers softened by T, from its definition."""
    total = 0.0
    for t, s in zip(taught.tolist(), learnt.tolist(), strict=True):
        p, q = [[math.exp(value / temperature) for value in row] for row in (t, s)]
        p, q = [[value / sum(row) for value in row] for row in (p, q)]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(taught)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_exits_learn_from_the_last_one(exits, images, temperature):
    """Each is a mixture of cross-entropy and divergence; the last exit has its labels alone."""
    found = Distilled(share=0.25, temperature=temperature)(exits, images, LABELS)
    plain = CrossEntropy()(exits, images, LABELS)
    for number in (0, 1):
        parted = divergence(exits[-1], exits[number], temperature)
        expected = 0.75 * plain[number].item() + 0.25 * parted
        assert found[number].item() == pytest.approx(expected, rel=1e-5)
    assert found[-1] == plain[-1]


def test_a_teacher_teaches_every_exit(exits, images, teacher):
    """With a network of its own the last exit learns from it too."""
    found = Distilled(teacher, share=1.0)(exits, images, LABELS)
    for exit_, loss in zip(exits, found, strict=True):
        assert loss.item() == pytest.approx(divergence(teacher(images), exit_, 3.0), rel=1e-5)


def test_whoever_answers_like_the_teacher_has_nothing_to_learn(images, teacher):
    """Equal answers do not diverge."""
    answers = teacher(images)
    found = Distilled(teacher, share=1.0)([answers, answers.clone()], images, LABELS)
    assert found.tolist() == pytest.approx([0, 0], abs=1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), count=st.integers(1, 4), own=st.booleans())
def test_a_teacher_without_a_share_changes_nothing(seed, count, own):
    """With share 0 it is cross-entropy, whoever teaches."""
    generator = torch.Generator().manual_seed(seed)
    exits = [torch.randn(12, 5, generator=generator) for _ in range(count)]
    images = torch.randint(0, 256, (12, 3, 4, 4), generator=generator, dtype=torch.uint8)
    found = Distilled(Teacher() if own else None, share=0.0)(exits, images, LABELS)
    assert torch.allclose(found, CrossEntropy()(exits, images, LABELS))


def test_the_last_exit_does_not_follow_its_pupils(exits, images):
    """What earlier exits learn from it leaves no gradient in it."""
    Distilled()(exits, images, LABELS)[:2].sum().backward()
    assert all(exit_.grad.abs().sum() > 0 for exit_ in exits[:2])
    assert exits[-1].grad is None or (exits[-1].grad == 0).all()


def test_a_teacher_of_ones_own_is_not_trained(exits, images, teacher):
    """No gradient reaches its weights, though they would take one."""
    Distilled(teacher)(exits, images, LABELS).sum().backward()
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(exit_.grad.abs().sum() > 0 for exit_ in exits)
