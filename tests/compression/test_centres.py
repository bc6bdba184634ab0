import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from xpi_ray.compression.centres import Centres, assign, look_up
from xpi_ray.errors import CodecError

NUMBERS = st.floats(-1e6, 1e6, width=32)
CARRIES = npst.arrays(
    np.float32, npst.array_shapes(min_dims=4, max_dims=4, max_side=4), elements=NUMBERS
)
CENTRES = npst.arrays(np.float32, st.integers(2, 16), elements=NUMBERS)


def make(values):
    """Centres at the given values."""
    centres = Centres(len(values))
    with torch.no_grad():
        centres.values.copy_(torch.as_tensor(values))
    return centres


def relu_carry(seed=0):
    """A batch like those after a block: more than half zeros, a long tail, 16,384 values."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(8, 8, 16, 16, generator=generator)
    scales = torch.rand(1, 8, 1, 1, generator=generator) + 0.2
    return (values * scales - 0.2).relu() ** 1.5


def distortion(centres, carry):
    """Mean squared error, without a graph."""
    return float((centres.eval()(carry, 1.0) - carry).square().mean())


def empirical_entropy_bits(symbols):
    """Of the symbols' histogram."""
    shares = np.bincount(symbols.ravel()) / symbols.size
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


@pytest.mark.parametrize("training", [True, False])
@given(carry=CARRIES, values=CENTRES, hardness=st.floats(0.1, 100))
def test_every_value_becomes_its_nearest_centre(training, carry, values, hardness):
    """The result is a centre to the last bit, and no other centre is nearer but for rounding."""
    quantised = make(values).train(training)(torch.from_numpy(carry), hardness)
    assert quantised.shape == carry.shape
    quantised = quantised.detach().numpy()
    assert np.isin(quantised, values).all()
    least = np.abs(carry[..., None].astype(np.float64) - values).min(-1)
    rounding = np.finfo(np.float32).eps * (np.abs(carry) + np.abs(values).max()) + 1e-44
    assert (np.abs(carry.astype(np.float64) - quantised) <= least + rounding).all()


@pytest.mark.parametrize("training", [True, False])
@given(carry=CARRIES, values=CENTRES)
def test_numpy_and_torch_agree(training, carry, values):
    """Symbols made and looked up by numpy give what the module gives, to the last bit."""
    centres = make(values).train(training)
    ascending = centres.ascending().detach().numpy()
    symbols = assign(carry, ascending)
    assert symbols.dtype == np.uint8
    expected = centres(torch.from_numpy(carry), 4.0).detach().numpy()
    assert (look_up(symbols, ascending) == expected).all()


def test_of_two_that_are_equally_near_the_lower_is_taken():
    """Midway between 1 and 2 stands 1, in numpy as in both modes of the module."""
    middle = torch.full((1, 1, 1, 1), 1.5)
    centres = make([2.0, 1.0, 5.0])
    assert centres(middle, 3.0).item() == 1
    assert centres.eval()(middle, 3.0).item() == 1
    assert assign(np.float32([1.5]), np.float32([1, 2, 5])).tolist() == [0]


@given(carry=CARRIES, low=st.floats(-10, 10), gap=st.floats(0.1, 10), hardness=st.floats(0.5, 8))
def test_the_gradient_of_two_centres_is_that_of_the_papers_softmax(carry, low, gap, hardness):
    """With two centres and σ = hardness / gap², the carry's gradient is that of Agustsson's Q."""
    carry = torch.from_numpy(carry / 1e5).requires_grad_()
    centres = make([low, low + gap])
    (gradient,) = torch.autograd.grad(centres(carry, hardness).sum(), carry)
    exact, values = carry.detach().double().requires_grad_(), centres.values.detach().double()
    sigma = hardness / (values[1] - values[0]) ** 2
    weights = F.softmax(-sigma * (exact[..., None] - values) ** 2, dim=-1)
    (expected,) = torch.autograd.grad((weights @ values).sum(), exact)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-4)


def test_neighbours_stand_for_all_once_hard_enough():
    """From hardness 8 on, five even centres pass the gradient of the softmax over all five."""
    carry = torch.linspace(0, 4, 401).view(1, 1, 1, -1).requires_grad_()
    centres = make([0.0, 1.0, 2.0, 3.0, 4.0])
    (gradient,) = torch.autograd.grad(centres(carry, 8.0).sum(), carry)
    weights = F.softmax(-8.0 * (carry[..., None] - centres.values) ** 2, dim=-1)
    (expected,) = torch.autograd.grad((weights @ centres.values).sum(), carry)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0.01)


def test_carry_and_centres_both_get_a_gradient():
    """Every centre does, that of its own values; and so does a good part of the carry."""
    carry = relu_carry().requires_grad_()
    centres = Centres(8)
    centres.initialise(carry.detach())
    weights = torch.rand(carry.shape)
    (weights * centres(carry, 2.0)).sum().backward()
    ascending = centres.ascending().detach().numpy()
    symbols = assign(carry.detach().numpy(), ascending).ravel()
    own = np.bincount(symbols, weights.numpy().ravel(), 8)
    order = centres.values.argsort()
    np.testing.assert_allclose(centres.values.grad[order].numpy(), own, rtol=1e-4)
    assert float((carry.grad != 0).float().mean()) > 0.2


def test_the_carrys_gradient_vanishes_with_hardness():
    """Away from the borders soft values become hard ones, which do not move with the carry."""
    carry = torch.tensor([-0.4, 0.1, 0.35, 0.8, 1.3, 2.4, 9.0]).view(1, 1, 1, -1).requires_grad_()
    centres = make([2.0, 0.0, 1.0])
    sizes = []
    for hardness in (2.0, 8.0, 32.0, 128.0):
        (gradient,) = torch.autograd.grad(centres(carry, hardness).sum(), carry)
        sizes.append(float(gradient.abs().sum()))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-3


def test_the_carrys_gradient_adds_up_to_the_step():
    """Its mean from one centre to the next is tanh(hardness / 2), almost all the way."""
    carry = torch.linspace(1, 3, 2_001).view(1, 1, 1, -1).requires_grad_()
    for hardness in (1.0, 4.0, 20.0):
        (gradient,) = torch.autograd.grad(make([0.0, 1, 3, 9])(carry, hardness).sum(), carry)
        assert float(gradient.mean()) == pytest.approx(np.tanh(hardness / 2), abs=0.01)


def test_eval_mode_makes_no_graph():
    """The result does not require a gradient."""
    assert not Centres(4).eval()(relu_carry().requires_grad_(), 2.0).requires_grad


@pytest.mark.parametrize("count", [2, 5, 16])
def test_entropy_of_very_hard_assignments_is_the_symbols(count):
    """The estimate at hardness 10,000 is the entropy of the symbols' histogram."""
    carry = relu_carry()
    centres = Centres(count)
    centres.initialise(carry)
    symbols = assign(carry.numpy(), centres.ascending().detach().numpy())
    found = centres.entropy_bits(carry, 1e4).item()
    assert found == pytest.approx(empirical_entropy_bits(symbols), abs=5e-3)


@given(carry=CARRIES, values=CENTRES, hardness=st.floats(0.1, 1e4))
def test_entropy_is_bounded_and_has_finite_gradients(carry, values, hardness):
    """Between 0 and log2 m, whatever the centres, those that coincide included."""
    carry = torch.from_numpy(carry).requires_grad_()
    centres = make(values)
    entropy = centres.entropy_bits(carry, hardness)
    entropy.backward()
    assert -1e-6 <= entropy.item() <= np.log2(len(values)) + 1e-6
    assert carry.grad.isfinite().all()
    assert centres.values.grad.isfinite().all()


def test_the_entropy_term_makes_symbols_cheaper():
    """Descending the estimate alone lowers the entropy of the real symbols."""
    carry = relu_carry()
    centres = Centres(8)
    centres.initialise(carry)
    start = empirical_entropy_bits(assign(carry.numpy(), centres.ascending().detach().numpy()))
    optimizer = torch.optim.Adam(centres.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        centres.entropy_bits(carry, 4.0).backward()
        optimizer.step()
    end = empirical_entropy_bits(assign(carry.numpy(), centres.ascending().detach().numpy()))
    assert end < 0.95 * start


@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_initialising_distorts_less_than_other_starts(count):
    """Less than equal, evenly spread and quantile centres, and as little as Lloyd from many."""
    carry = relu_carry()
    centres = Centres(count)
    centres.initialise(carry)
    found = distortion(centres, carry)
    equal = make(torch.full((count,), float(carry.mean())))
    even = make(torch.linspace(0, float(carry.max()), count))
    levels = (torch.arange(count - 1) + 0.5) / (count - 1)
    quantiles = make(torch.cat([torch.zeros(1), carry[carry > 0].quantile(levels)]))
    assert found < 0.95 * min(distortion(other, carry) for other in (equal, even, quantiles))
    assert found < 1.1 * least_distortion(carry.numpy().ravel(), count)
    assert (centres.values == 0).any()


def least_distortion(values, count):
    """By exact dynamic programming over 200 cells of the sorted values."""
    cells = [cell.astype(np.float64) for cell in np.array_split(np.sort(values), 200)]
    n, s, q = (
        np.cumsum([0, *column])
        for column in zip(*((len(c), c.sum(), (c**2).sum()) for c in cells), strict=True)
    )
    start, end = np.triu_indices(201, 1)
    cost = np.full((201, 201), np.inf)
    size = n[end] - n[start]
    cost[start, end] = q[end] - q[start] - (s[end] - s[start]) ** 2 / size
    best = cost[0]
    for _ in range(count - 1):
        best = np.minimum(best, (best[:, None] + cost).min(0))
    return best[-1] / len(values)


def test_a_constant_carry_is_exact():
    """All zeros, or all of one value, come back as they were."""
    for value in (0.0, 3.3):
        carry = torch.full((2, 3, 4, 4), value)
        centres = Centres(16)
        centres.initialise(carry)
        torch.testing.assert_close(centres(carry, 2.0).detach(), carry)


def test_training_centres_lowers_the_distortion():
    """Two centres set badly find the two humps of a bimodal sample."""
    generator = torch.Generator().manual_seed(0)
    humps = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    carry = humps + 0.1 * torch.randn(4, 2, 8, 8, generator=generator)
    centres = make([0.0, 2.4])
    start = distortion(centres, carry)
    optimizer = torch.optim.SGD(centres.parameters(), lr=0.2)
    centres.train()
    for step in range(60):
        optimizer.zero_grad()
        F.mse_loss(centres(carry, 2.0 + step / 5), carry).backward()
        optimizer.step()
    assert distortion(centres, carry) < 0.05 * start
    torch.testing.assert_close(centres.ascending().detach(), humps.flatten(), rtol=0, atol=0.05)


def test_layout_does_not_matter():
    """A channels-last slice gives the values of its row-major copy, and keeps its layout."""
    features = relu_carry().contiguous(memory_format=torch.channels_last)
    carry = features[:, 3:]
    centres = Centres(8)
    found = centres(carry, 2.0)
    assert torch.equal(found, centres(carry.contiguous(), 2.0))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("count", [0, 1, 17])
def test_other_counts_are_refused(count):
    """Only 2 to 16 centres are known, to the module and to numpy."""
    with pytest.raises(CodecError, match="2 to 16"):
        Centres(count)
    with pytest.raises(CodecError, match="2 to 16"):
        assign(np.zeros(3, np.float32), np.arange(count, dtype=np.float32))


def test_centres_out_of_order_are_refused():
    """Symbols would mean nothing."""
    with pytest.raises(CodecError, match="ascending"):
        assign(np.zeros(3, np.float32), np.float32([1, 0]))


def test_foreign_symbols_are_refused():
    """A symbol that no centre has is refused; none at all are fine."""
    centres = np.float32([0, 1, 2])
    with pytest.raises(CodecError, match="below 3, got 3"):
        look_up(np.uint8([0, 3]), centres)
    assert look_up(np.empty(0, np.uint8), centres).size == 0
