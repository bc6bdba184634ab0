from collections import Counter

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.quantizer import MinMaxQuantizer
from xpi_ray.training.quantization import CarryQuantization, min_max


@pytest.fixture
def quantization():
    """For three blocks, in training mode, with the centres of block 1 at the carry's values."""
    module = CarryQuantization(3)
    module.initialise(1, make_carry())
    return module


def make_carry():
    """A ReLU carry in which all levels quantise differently."""
    return torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(0)).relu()


@given(
    carry=npst.arrays(
        np.float32,
        npst.array_shapes(min_dims=4, max_dims=4, max_side=5),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_min_max_is_the_link_quantiser(carry):
    """Each sample comes out as the 4-bit quantiser of the link sends it, to the last bit."""
    link = MinMaxQuantizer(4)
    expected = [link.dequantize(link.quantize(sample)) for sample in carry]
    assert (min_max(torch.from_numpy(carry)).numpy() == np.stack(expected)).all()


def test_min_max_passes_gradients_unchanged():
    """Straight-through: the gradient in the carry is that of the result."""
    carry = make_carry().requires_grad_()
    weights = torch.rand(carry.shape)
    (weights * min_max(carry)).sum().backward()
    assert torch.equal(carry.grad, weights)


def test_levels_are_named_after_their_quantiser(quantization):
    """One min-max level, then the sets of centres."""
    assert quantization.levels == ("minmax4", "centres16", "centres8", "centres4")


@pytest.mark.parametrize("count", [16, 8, 4])
def test_a_learned_level_uses_its_own_centres(quantization, count):
    """The level of m centres of a block makes the values of that set, in either mode."""
    carry = make_carry()
    for mode in (True, False):
        found = quantization.train(mode).quantize(carry, 1, f"centres{count}")
        assert torch.isin(found, quantization.centres(1, count).values).all()
        assert len(found.unique()) == count
        assert torch.equal(found, quantization.centres(1, count)(carry, 1.0))


def test_more_levels_distort_less(quantization):
    """16 centres are nearer to the carry than 16 even levels, and than fewer centres."""
    carry = make_carry()
    errors = [
        (quantization.quantize(carry, 1, level) - carry).square().mean().item()
        for level in ("centres16", "minmax4", "centres8", "centres4")
    ]
    assert errors == sorted(errors)


def test_initialising_touches_one_block_only(quantization):
    """Block 2 keeps its first centres while block 1 has those of the data."""
    fresh = CarryQuantization(3)
    for count in (16, 8, 4):
        assert torch.equal(quantization.centres(2, count).values, fresh.centres(2, count).values)
        assert not torch.equal(
            quantization.centres(1, count).values, fresh.centres(1, count).values
        )


def test_unknown_levels_and_blocks_are_refused(quantization):
    """A level that is none, and a block that hands no carry on."""
    with pytest.raises(ValueError, match="tuple"):
        quantization.quantize(make_carry(), 1, "centres5")
    for block in (0, 3):
        with pytest.raises(KeyError):
            quantization.quantize(make_carry(), block, "centres8")


def test_eval_mode_leaves_the_carry_alone(quantization):
    """The very tensor comes back."""
    carry = make_carry()
    quantization.eval()
    assert all(quantization(carry, 1) is carry for _ in range(20))


def test_half_of_the_batches_stay_and_half_of_the_rest_is_min_max(quantization):
    """Of 2,000 batches about 1,000 are left alone, 500 meet min-max and 167 each set of centres."""
    carry = make_carry()
    outputs = {quantization.quantize(carry, 1, level): level for level in quantization.levels}
    generator = torch.Generator().manual_seed(3)
    counts = Counter()
    for _ in range(2_000):
        found = quantization(carry, 1, generator)
        same = [level for output, level in outputs.items() if torch.equal(output, found)]
        counts["untouched" if found is carry else same[0]] += 1
    assert counts["untouched"] == pytest.approx(1_000, abs=100)
    assert counts["minmax4"] == pytest.approx(500, abs=80)
    for level in quantization.levels[1:]:
        assert counts[level] == pytest.approx(167, abs=50)


def test_a_generator_fixes_the_choices(quantization):
    """The same seed makes the same carries, whatever torch's own generator does."""

    def run():
        generator = torch.Generator().manual_seed(5)
        return [quantization(make_carry(), 1, generator) for _ in range(20)]

    first = run()
    torch.rand(7)
    second = run()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert len({len(carry.unique()) for carry in first}) > 2


def test_hardness_reaches_the_centres(quantization):
    """At a high hardness the carry feels less gradient than at a low one."""
    carry = make_carry().requires_grad_()
    sums = []
    for hardness in (2.0, 50.0):
        quantization.hardness = hardness
        output = quantization.quantize(carry, 1, "centres8")
        (gradient,) = torch.autograd.grad(output.sum(), carry)
        sums.append(int((gradient > 1e-3).sum()))
    assert sums[1] < 0.5 * sums[0]


def test_a_state_dict_carries_all_centres(quantization):
    """Loaded into a fresh module it makes the same carries."""
    fresh = CarryQuantization(3)
    fresh.load_state_dict(quantization.state_dict())
    for level in quantization.levels:
        found = fresh.quantize(make_carry(), 1, level)
        assert torch.equal(found, quantization.quantize(make_carry(), 1, level))
