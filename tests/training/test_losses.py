import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from xpi_ray.explain.importance import IntegratedGradients, Saliency
from xpi_ray.training.losses import Manipulation, Skew, manipulation_loss, measure_skew

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
    found = measure_skew(manipulation, Linear(), features_of(0.5, 2.0, 2.0, 4.0), LABEL, k=2)
    assert found.skewness.tolist() == pytest.approx([shares[0] + shares[1]])
    assert found.disorder.tolist() == pytest.approx([max(shares[2:]) - min(shares[:2])])
    assert found.misplaced.tolist() == [0.5 if attribution == "integrated_gradients" else 0]


@pytest.mark.parametrize("weight", [0, 1, 3])
def test_the_loss_is_what_lacks_and_what_leads(weight):
    """By hand: half of 0.8 - 0.7, and half of the 0.2 by which a later channel leads."""
    skew = Skew(torch.tensor([0.7, 0.9]), torch.tensor([0.2, -0.1]), torch.zeros(2))
    loss = manipulation_loss(Manipulation(disorder_weight=weight), skew)
    assert float(loss) == pytest.approx(0.05 + 0.1 * weight)


@given(
    skewness=st.lists(st.floats(0.8, 1), min_size=1, max_size=5),
    disorder=st.lists(st.floats(-1, 0), min_size=1, max_size=5),
)
def test_nothing_is_lost_where_all_is_as_wished(skewness, disorder):
    """Skewness from ρ on and no later channel ahead: the loss is zero."""
    wished = Manipulation(target_skewness=0.8)
    ranked = torch.tensor(skewness, dtype=torch.float64), torch.tensor(disorder)
    skew = Skew(*ranked, torch.zeros(len(skewness)))
    assert float(manipulation_loss(wished, skew)) == 0


@settings(max_examples=25, deadline=None)
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
    before = measure_skew(manipulation, reference, features, labels, k=2)
    (gradient,) = torch.autograd.grad(manipulation_loss(manipulation, before), features)
    step = 1e-3 * gradient / gradient.norm()
    after = measure_skew(manipulation, reference, (features - step).detach(), labels, k=2)
    assert after.skewness.mean() > before.skewness.mean()


def test_a_step_of_first_order_raises_skewness_and_mends_disorder():
    """With gradients as constants too, the first channels grow and the later ones shrink."""
    manipulation = Manipulation()
    features = features_of(1.0, 1.0, 3.0, 1.0).requires_grad_()
    before = measure_skew(manipulation, Linear(), features, LABEL, k=2)
    (gradient,) = torch.autograd.grad(manipulation_loss(manipulation, before), features)
    assert (gradient[:, 1] < 0).all()
    assert (gradient[:, 2] > 0).all()
    after = measure_skew(manipulation, Linear(), (features - 0.1 * gradient).detach(), LABEL, k=2)
    assert after.skewness > before.skewness
    assert after.disorder < before.disorder


def test_wrong_answers_do_not_count():
    """Of two samples the one that the reference mistakes is left out, unless all count."""
    features = torch.cat([features_of(1.0, 1.0, 1.0, 1.0), features_of(-1.0, -1.0, -1.0, -1.0)])
    labels = torch.tensor([0, 0])  # the second is a 1 to the reference
    assert len(measure_skew(Manipulation(), Linear(), features, labels, k=2).skewness) == 1
    every = Manipulation(correct_only=False)
    assert len(measure_skew(every, Linear(), features, labels, k=2).skewness) == 2


def test_no_sample_is_no_loss():
    """Where none is answered correctly the loss is zero, and can still be differentiated."""
    features = features_of(1.0, 1.0, 1.0, 1.0).requires_grad_()
    skew = measure_skew(Manipulation(), Linear(), features, torch.tensor([1]), k=2)
    loss = manipulation_loss(Manipulation(), skew)
    loss.backward()
    assert loss.item() == 0
    assert (features.grad == 0).all()


def test_a_branch_that_reads_all_channels_has_all_importance():
    """With k = C skewness is 1, there is no disorder, and the loss is zero."""
    skew = measure_skew(Manipulation(), Linear(), features_of(1.0, 2.0, 3.0, 4.0), LABEL, k=4)
    assert skew.skewness.tolist() == pytest.approx([1])
    assert skew.disorder.tolist() == [0]
    assert float(manipulation_loss(Manipulation(), skew)) == pytest.approx(0)


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
