import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from xpi_ray.explain.importance import IntegratedGradients, Saliency, disorder, skewness
from xpi_ray.training.losses import Manipulation, counted_shares, manipulation_loss

WEIGHTS = (4.0, 3.0, 2.0, 1.0)
LABEL = torch.tensor([0])


class Linear(nn.Module):
    """Label 0 for a weighted sum of the channels' means above zero, label 1 for one below."""

    def forward(self, features):
        """Features (n, 4, h, w) to logits (n, 2)."""
        score = features.mean((2, 3)) @ torch.tensor(WEIGHTS)
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def bent():
    """A reference network that is anything but linear, for six channels and three classes."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(6, 8, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 9, 3)
    ).requires_grad_(False)


def features_of(*values):
    """One sample of constant channels, (1, C, 2, 2)."""
    return torch.tensor(values).view(1, -1, 1, 1).expand(1, -1, 2, 2).clone()


@pytest.mark.parametrize(
    ("attribution", "shares"),
    [("integrated_gradients", (0.125, 0.375, 0.25, 0.25)), ("saliency", (0.4, 0.3, 0.2, 0.1))],
)
def test_shares_of_a_linear_reference_are_known(attribution, shares):
    """Integrated gradients go by weight times feature, saliency by weight alone."""
    manipulation = Manipulation(attribution=attribution)
    found = counted_shares(manipulation, Linear(), features_of(0.5, 2.0, 2.0, 4.0), LABEL)
    assert found.tolist() == [pytest.approx(shares)]


@pytest.mark.parametrize("weight", [0, 1, 3])
def test_the_loss_is_what_lacks_and_what_leads(weight):
    """By hand: half of 0.8 - 0.7, and half of the 0.2 by which a later channel leads."""
    shares = torch.tensor([[0.65, 0.05, 0.25, 0.05], [0.5, 0.4, 0.1, 0.0]])
    loss = manipulation_loss(Manipulation(disorder_weight=weight), shares, k=2)
    assert float(loss) == pytest.approx(0.05 + 0.1 * weight)


@given(weights=st.lists(st.floats(0.5, 1), min_size=2, max_size=2), later=st.floats(0, 0.1))
def test_nothing_is_lost_where_all_is_as_wished(weights, later):
    """Skewness from ρ on and no later channel ahead: the loss is zero."""
    shares = torch.tensor([[*weights, later, later]], dtype=torch.float64)
    shares = shares / shares.sum()
    assert float(manipulation_loss(Manipulation(target_skewness=0.8), shares, k=2)) == 0


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    manipulation=st.sampled_from(
        [
            Manipulation(second_order=True, steps=2, disorder_weight=0, target_skewness=1),
            Manipulation(attribution="saliency", disorder_weight=0, target_skewness=1),
        ]
    ),
)
def test_a_step_against_the_gradient_raises_skewness(seed, manipulation):
    """The exact gradient points where the first channels count less."""
    manipulation = manipulation.model_copy(update={"correct_only": False})
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(4, 6, 3, 3, generator=generator).requires_grad_()
    labels = torch.randint(0, 3, (4,), generator=generator)
    reference = bent()
    before = counted_shares(manipulation, reference, features, labels)
    (gradient,) = torch.autograd.grad(manipulation_loss(manipulation, before, k=2), features)
    step = 1e-3 * gradient / gradient.norm()
    after = counted_shares(manipulation, reference, (features - step).detach(), labels)
    assert skewness(after, k=2).mean() > skewness(before, k=2).mean()


def test_a_step_of_first_order_raises_skewness_and_mends_disorder():
    """With gradients as constants too, the first channels grow and the later ones shrink."""
    manipulation = Manipulation()
    features = features_of(1.0, 1.0, 3.0, 1.0).requires_grad_()
    before = counted_shares(manipulation, Linear(), features, LABEL)
    (gradient,) = torch.autograd.grad(manipulation_loss(manipulation, before, k=2), features)
    assert (gradient[:, 1] < 0).all()
    assert (gradient[:, 2] > 0).all()
    after = counted_shares(manipulation, Linear(), (features - 0.1 * gradient).detach(), LABEL)
    assert skewness(after, k=2) > skewness(before, k=2)
    assert disorder(after, k=2) < disorder(before, k=2)


def test_wrong_answers_do_not_count():
    """Of two samples the one that the reference mistakes is left out, unless all count."""
    features = torch.cat([features_of(1.0, 1.0, 1.0, 1.0), features_of(-1.0, -1.0, -1.0, -1.0)])
    labels = torch.tensor([0, 0])  # the second is a 1 to the reference
    assert len(counted_shares(Manipulation(), Linear(), features, labels)) == 1
    every = Manipulation(correct_only=False)
    assert len(counted_shares(every, Linear(), features, labels)) == 2


def test_no_sample_is_no_loss():
    """Where none is answered correctly the loss is zero, and can still be differentiated."""
    features = features_of(1.0, 1.0, 1.0, 1.0).requires_grad_()
    shares = counted_shares(Manipulation(), Linear(), features, torch.tensor([1]))
    loss = manipulation_loss(Manipulation(), shares, k=2)
    loss.backward()
    assert loss.item() == 0
    assert (features.grad == 0).all()


def test_a_branch_that_reads_all_channels_has_all_importance():
    """With k = C skewness is 1, there is no disorder, and the loss is zero."""
    shares = counted_shares(Manipulation(), Linear(), features_of(1.0, 2.0, 3.0, 4.0), LABEL)
    assert skewness(shares, k=4).tolist() == pytest.approx([1])
    assert disorder(shares, k=4).tolist() == [0]
    assert float(manipulation_loss(Manipulation(), shares, k=4)) == pytest.approx(0)


def test_the_measure_is_the_one_asked_for():
    """Steps and order reach integrated gradients; saliency has neither."""
    assert Manipulation(steps=3, second_order=True).attributor() == IntegratedGradients(3, True)
    assert Manipulation(attribution="saliency").attributor() == Saliency()


@pytest.mark.parametrize(
    "values",
    [
        {"target_skewness": 1.1},
        {"weight": 0},
        {"steps": 0},
        {"attribution": "guess"},
        {"reference_follows": True, "second_order": True},
        {"reference_follows": True, "attribution": "saliency"},
    ],
)
def test_impossible_manipulations_are_refused(values):
    """Out of range, unknown, or a measure by which a learning reference would be skewed too."""
    with pytest.raises(ValidationError):
        Manipulation(**values)
