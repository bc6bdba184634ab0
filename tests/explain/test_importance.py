import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import torch
from captum import attr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from xpi_ray.explain.importance import (
    IntegratedGradients,
    Saliency,
    channel_shares,
    disorder,
    label_gradients,
    misplaced,
    skewness,
)

N, C, K, SIDE = 6, 5, 4, 4
SHARES = npst.arrays(
    np.float64,
    npst.array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.floats(0, 1, width=16),
).map(torch.from_numpy)


@pytest.fixture(scope="module")
def reference():
    """A frozen, smooth network in float64, whose answers are far from linear in its features."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(C, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(8, K),
    )
    for parameter in network.parameters():
        parameter.data *= 3
    return network.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def features():
    """Features as they come out of a ReLU, with zeros among them."""
    generator = torch.Generator().manual_seed(4)
    return torch.randn(N, C, SIDE, SIDE, generator=generator, dtype=torch.float64).relu()


@pytest.fixture(scope="module")
def labels():
    """A label for each sample."""
    return torch.arange(N) % K


def output(reference, features, labels):
    """What is explained: the log-probability of each label, (n,)."""
    return reference(features).log_softmax(1).gather(1, labels[:, None])[:, 0]


def captum_forward(reference):
    """The reference with the output that Captum's ``target`` picks from."""
    return nn.Sequential(reference, nn.LogSoftmax(1))


def test_many_steps_agree_with_captum(reference, features, labels):
    """With 300 intervals every value is within 1 in 10,000 of the largest of Captum's integral."""
    oracle = attr.IntegratedGradients(captum_forward(reference))
    expected = oracle.attribute(features, target=labels, n_steps=200, method="gausslegendre")
    found = IntegratedGradients(steps=300)(reference, features, labels).values
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_one_step_is_far_from_the_integral(reference, features, labels):
    """The tolerance above means something: AgileNN's two points miss it a hundredfold."""
    coarse = IntegratedGradients(steps=1)(reference, features, labels).values
    fine = IntegratedGradients(steps=300)(reference, features, labels).values
    assert (coarse - fine).abs().max() > 1e-2 * fine.abs().max()


def test_attributions_are_complete(reference, features, labels):
    """A sample's values add up to its output less the output at zeros."""
    found = IntegratedGradients(steps=300)(reference, features, labels).values.sum(dim=(1, 2, 3))
    zeros = torch.zeros_like(features)
    gained = output(reference, features, labels) - output(reference, zeros, labels)
    assert found == pytest.approx(gained.numpy(), abs=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_few_steps_are_the_trapezoid(reference, features, labels, steps):
    """Values are the features times the trapezoid rule over gradients, taken one point a time."""
    gradients = []
    for k in range(steps + 1):
        point = (features * (k / steps)).requires_grad_()
        score = output(reference, point, labels).sum()
        gradients.append(torch.autograd.grad(score, point)[0])
    expected = features * torch.trapezoid(torch.stack(gradients), dx=1 / steps, dim=0)
    found = IntegratedGradients(steps)(reference, features, labels).values
    assert torch.allclose(found, expected, atol=1e-12)


def test_saliency_agrees_with_captum(reference, features, labels):
    """Saliency is Captum's with its sign."""
    oracle = attr.Saliency(captum_forward(reference))
    inputs = features.clone().requires_grad_()
    expected = oracle.attribute(inputs, target=labels, abs=False)
    assert torch.allclose(Saliency()(reference, features, labels).values, expected, atol=1e-12)


@pytest.mark.parametrize("attributor", [IntegratedGradients(3), Saliency()])
def test_the_references_answers_come_along(reference, features, labels, attributor):
    """The logits are those at the features themselves, without a graph."""
    logits = attributor(reference, features.clone().requires_grad_(), labels).logits
    assert torch.allclose(logits, reference(features), atol=1e-12)
    assert not logits.requires_grad


def test_first_order_takes_the_gradient_for_a_constant(reference, features, labels):
    """Without second order, the values' derivative in the features is the mean gradient alone."""
    inputs = (features + 0.1).requires_grad_()
    values = IntegratedGradients(2)(reference, inputs, labels).values
    weights = torch.linspace(-1, 1, values.numel()).view_as(values).double()
    (found,) = torch.autograd.grad((weights * values).sum(), inputs)
    assert torch.allclose(found, weights * values.detach() / inputs.detach(), atol=1e-12)


@pytest.mark.parametrize("attributor", [IntegratedGradients(2, second_order=True), Saliency()])
def test_second_order_agrees_with_finite_differences(reference, features, labels, attributor):
    """The gradient's own change with the features is part of the derivative."""
    inputs = features[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f: attributor(reference, f, labels[:2]).values, inputs, fast_mode=True
    )


def test_gradients_need_no_graph_around_them(reference, features, labels):
    """They are the same within ``no_grad``, and nothing is left hanging on the features."""
    inputs = features.clone().requires_grad_()
    with torch.no_grad():
        silent, _ = label_gradients(reference, inputs, labels, create_graph=False)
    loud, _ = label_gradients(reference, inputs, labels, create_graph=True)
    assert torch.equal(silent, loud)
    assert not silent.requires_grad
    assert loud.requires_grad


def test_shares_add_up_to_one(features):
    """Each row adds up to 1 and goes by the magnitude of the channel's values."""
    values = features * torch.tensor([1, -2, 3, -4, 0.0]).view(1, C, 1, 1)
    shares = channel_shares(values)
    assert shares.sum(dim=1) == pytest.approx(np.ones(N))
    totals = values.abs().sum(dim=(2, 3))
    assert torch.allclose(shares * totals.sum(1, keepdim=True), totals)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_of_which_nothing_counts_has_no_shares(dtype):
    """Its shares are zero and its gradient finite, whatever weight a loss gives them."""
    values = torch.zeros(2, 3, 2, 2, dtype=dtype)
    values[1] = 1.0
    values.requires_grad_()
    shares = channel_shares(values)
    assert shares[0].tolist() == [0, 0, 0]
    (100 * skewness(shares, 1)).sum().backward()
    assert values.grad.isfinite().all()
    assert (values.grad[0] == 0).all()


@given(st.data(), SHARES)
def test_what_the_first_k_hold_does_not_depend_on_their_order(data, shares):
    """Shuffling the first k and, apart from them, the others changes neither measure."""
    k = data.draw(st.integers(1, shares.shape[1]))
    first = data.draw(st.permutations(range(k)))
    rest = data.draw(st.permutations(range(k, shares.shape[1])))
    shuffled = shares[:, [*first, *rest]]
    assert torch.allclose(skewness(shuffled, k), skewness(shares, k))
    assert torch.equal(disorder(shuffled, k), disorder(shares, k))


@given(st.data(), SHARES)
def test_order_is_violated_where_a_later_channel_leads(data, shares):
    """Disorder is above zero exactly where some later channel has more than one of the first."""
    k = data.draw(st.integers(1, shares.shape[1]))
    violated = [any(row[k:].max() > first for first in row[:k]) if k < len(row) else False
                for row in shares.numpy()]  # fmt: skip
    assert (disorder(shares, k) > 0).tolist() == violated


@given(SHARES)
def test_all_channels_hold_everything_in_order(shares):
    """With k = C skewness is the whole and disorder zero."""
    k = shares.shape[1]
    assert torch.equal(skewness(shares, k), shares.sum(dim=1))
    assert torch.equal(disorder(shares, k), torch.zeros(len(shares), dtype=shares.dtype))


@given(
    npst.arrays(np.float64, (2, C, 2, 2), elements=st.floats(-1, 1, width=16)),
    st.floats(1e-3, 1e3),
    st.integers(1, C),
)
def test_only_proportions_count(values, scale, k):
    """Attributions of another scale have the same skewness and disorder."""
    shares, scaled = (channel_shares(torch.from_numpy(v)) for v in (values, scale * values))
    assert torch.allclose(skewness(scaled, k), skewness(shares, k))
    assert torch.allclose(disorder(scaled, k), disorder(shares, k))


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6))
def test_misplaced_counts_the_first_places_that_lack_a_top_channel(seed, k):
    """As counted one by one; none are where the first k are the top k."""
    shares = torch.rand(5, 6, generator=torch.Generator().manual_seed(seed))
    for row, found in zip(shares.tolist(), misplaced(shares, k).tolist(), strict=True):
        top = sorted(range(6), key=lambda channel: -row[channel])[:k]
        assert found == pytest.approx(sum(channel >= k for channel in top) / k)
    assert misplaced(shares.sort(descending=True).values, k).tolist() == [0] * 5
