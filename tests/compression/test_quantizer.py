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


@given(values=TENSORS, bits=st.sampled_from(BITS))
def test_error_is_at_most_half_a_level(values, bits):
    """Any finite tensor, of any spread, comes back within half a level and float rounding."""
    quantizer = MinMaxQuantizer(bits)
    quantized = quantizer.quantize(values)
    restored = quantizer.dequantize(quantized, values.shape)
    assert restored.dtype == np.float32
    assert restored.shape == values.shape
    assert len(quantized.symbols) == quantizer.size_bytes(values.size)
    half_level = (quantized.maximum - quantized.minimum) / (2**bits - 1) / 2
    largest = max(abs(quantized.minimum), abs(quantized.maximum))
    rounding = largest * np.finfo(np.float32).eps + np.finfo(np.float32).smallest_subnormal
    error = np.abs(values.astype(np.float64) - restored)
    assert (error <= half_level * (1 + 1e-9) + rounding).all()


@pytest.mark.parametrize("bits", BITS)
def test_both_ends_are_exact(bits):
    """Minimum and maximum come back as they were."""
    values = np.array([-1.7, 0.1, 3.3], np.float32)
    quantizer = MinMaxQuantizer(bits)
    restored = quantizer.dequantize(quantizer.quantize(values), (3,))
    assert restored[0] == values[0]
    assert restored[2] == values[2]


@pytest.mark.parametrize("bits", BITS)
def test_constant_tensor_is_exact(bits):
    """A tensor of one value comes back without loss."""
    values = np.full((3, 5), -2.3, np.float32)
    quantizer = MinMaxQuantizer(bits)
    assert (quantizer.dequantize(quantizer.quantize(values), (3, 5)) == values).all()


def test_symbols_are_those_of_the_paper():
    """Levels 0..15 become symbols 0..15, two to a byte, high half first, the odd one padded."""
    values = np.array([0, 15, 1, 2, 7.4], np.float32)
    assert MinMaxQuantizer(4).quantize(values) == Quantized(b"\x0f\x12\x70", 0.0, 15.0)


def test_16_bit_symbols_are_little_endian():
    """Symbol 256 is written as the bytes 0 and 1."""
    values = np.array([0, 256, 65_535], np.float32)
    assert MinMaxQuantizer(16).quantize(values).symbols == b"\x00\x00\x00\x01\xff\xff"


@pytest.mark.parametrize("bits", BITS)
def test_memory_order_does_not_matter(bits):
    """A channels-last tensor gives the same symbols as its row-major copy."""
    last = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32).transpose(2, 0, 1)
    quantizer = MinMaxQuantizer(bits)
    assert quantizer.quantize(last) == quantizer.quantize(np.ascontiguousarray(last))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused(bad):
    """One NaN or infinity refuses the tensor."""
    values = np.array([0.0, bad, 1.0], np.float32)
    with pytest.raises(CodecError, match="finite"):
        MinMaxQuantizer(8).quantize(values)


@pytest.mark.parametrize("bits", [0, 1, 5, 12, 32])
def test_other_widths_are_refused(bits):
    """Only 4, 8 and 16 bits are known."""
    with pytest.raises(CodecError, match="4, 8 or 16"):
        MinMaxQuantizer(bits)


@pytest.mark.parametrize(
    "quantized",
    [
        Quantized(b"\x00\x00", 0.0, 1.0),
        Quantized(b"\x00" * 4, 0.0, 1.0),
        Quantized(b"\x00" * 3, np.nan, 1.0),
        Quantized(b"\x00" * 3, 0.0, np.inf),
        Quantized(b"\x00" * 3, 1.0, 0.0),
    ],
    ids=["short", "long", "NaN", "infinite", "reversed"],
)
def test_foreign_symbols_are_refused(quantized):
    """Symbols that do not fit the shape, and ranges that are none, are refused."""
    with pytest.raises(CodecError, match="expected"):
        MinMaxQuantizer(8).dequantize(quantized, (3,))
