import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.quantizer import BITS, MinMaxQuantizer, Quantized
from xpi_ray.errors import CodecError

TENSORS = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=7),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@pytest.mark.parametrize("per_channel", [False, True])
@given(values=TENSORS, bits=st.sampled_from(BITS))
def test_error_is_at_most_half_a_level(per_channel, values, bits):
    """Any finite tensor, of any spread, comes back within half a level and float rounding."""
    quantizer = MinMaxQuantizer(bits, per_channel=per_channel)
    quantized = quantizer.quantize(values)
    restored = quantizer.dequantize(quantized)
    assert restored.dtype == np.float32
    assert quantized.symbols.shape == restored.shape == values.shape
    assert quantized.symbols.dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert (quantized.symbols < quantizer.alphabet).all()
    error = np.abs(values.astype(np.float64) - restored)
    ranges = quantized.ranges.astype(np.float64)
    half_level = (ranges[:, 1] - ranges[:, 0]) / (2**bits - 1) / 2
    largest = np.abs(ranges).max(1, initial=0)
    rounding = largest * np.finfo(np.float32).eps + np.finfo(np.float32).smallest_subnormal
    bound = half_level * (1 + 1e-9) + rounding
    if not per_channel:
        bound = np.repeat(bound, len(values))
    assert (error <= bound.reshape(-1, *[1] * (values.ndim - 1))).all()


@pytest.mark.parametrize("bits", BITS)
def test_both_ends_are_exact(bits):
    """Minimum and maximum come back as they were."""
    values = np.array([-1.7, 0.1, 3.3], np.float32)
    quantizer = MinMaxQuantizer(bits)
    restored = quantizer.dequantize(quantizer.quantize(values))
    assert restored[0] == values[0]
    assert restored[2] == values[2]


@pytest.mark.parametrize("bits", BITS)
def test_constant_tensor_is_exact(bits):
    """A tensor of one value comes back without loss."""
    values = np.full((3, 5), -2.3, np.float32)
    quantizer = MinMaxQuantizer(bits)
    assert (quantizer.dequantize(quantizer.quantize(values)) == values).all()


def test_a_range_per_channel_is_that_of_the_channel_alone():
    """Each channel is quantised as if there were no other."""
    values = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    together = MinMaxQuantizer(4, per_channel=True).quantize(values)
    for index, channel in enumerate(values):
        alone = MinMaxQuantizer(4).quantize(channel)
        assert (together.symbols[index] == alone.symbols).all()
        assert (together.ranges[index] == alone.ranges[0]).all()


def test_symbols_are_those_of_the_paper():
    """Levels 0..15 become symbols 0..15."""
    values = np.array([0, 15, 1, 2, 7.4], np.float32)
    symbols, ranges = MinMaxQuantizer(4).quantize(values)
    assert symbols.tolist() == [0, 15, 1, 2, 7]
    assert ranges.tolist() == [[0, 15]]


@pytest.mark.parametrize("bits", BITS)
def test_memory_order_does_not_matter(bits):
    """A channels-last tensor gives the same symbols as its row-major copy."""
    last = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32).transpose(2, 0, 1)
    found, expected = map(MinMaxQuantizer(bits).quantize, (last, np.ascontiguousarray(last)))
    assert found.symbols.tobytes() == expected.symbols.tobytes()
    assert (found.ranges == expected.ranges).all()


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused(per_channel, bad):
    """One NaN or infinity refuses the tensor."""
    values = np.array([[0.0, 2.0], [bad, 1.0]], np.float32)
    with pytest.raises(CodecError, match="finite"):
        MinMaxQuantizer(8, per_channel=per_channel).quantize(values)


@pytest.mark.parametrize("bits", [0, 1, 9, 15, 32])
def test_other_widths_are_refused(bits):
    """Only 2 to 8, 12 and 16 bits are known."""
    with pytest.raises(CodecError, match="2 to 8, 12 or 16"):
        MinMaxQuantizer(bits)


@pytest.mark.parametrize(
    "ranges",
    [[[0, 1], [0, 1]], [[np.nan, 1]], [[0, np.inf]], [[1, 0]]],
    ids=["of two channels", "NaN", "infinite", "reversed"],
)
def test_foreign_ranges_are_refused(ranges):
    """Ranges that do not fit the symbols, and those that are none, are refused."""
    with pytest.raises(CodecError, match="expected"):
        MinMaxQuantizer(8).dequantize(Quantized(np.zeros(3, np.uint8), np.float32(ranges)))
