import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.codec import QuantizedCodec
from xpi_ray.compression.coders import HuffmanCoder, Lz4Coder, LzwCoder
from xpi_ray.compression.quantizer import MinMaxQuantizer
from xpi_ray.errors import CodecError

MIN_MAX = [QuantizedCodec(MinMaxQuantizer(bits), Lz4Coder()) for bits in (16, 8, 4)]
OTHERS = [
    QuantizedCodec(MinMaxQuantizer(5, per_channel=True), Lz4Coder(shuffled=True)),
    QuantizedCodec(MinMaxQuantizer(12), HuffmanCoder()),
    QuantizedCodec(MinMaxQuantizer(2), LzwCoder()),
]
CODECS = [*MIN_MAX, *OTHERS]
by_name = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


def relu_carry(seed=0, shape=(32, 16, 16)):
    """A carry as a ReLU leaves it: about half zeros."""
    return np.maximum(np.random.default_rng(seed).normal(size=shape), 0).astype(np.float32)


@pytest.mark.parametrize("shape", [(32, 16, 16), (64, 8, 8), (3, 1, 5)])
def test_fewer_bits_are_coarser_and_smaller(shape):
    """From 16 bits to 4, the error rises and the payload shrinks."""
    carry = relu_carry(shape=shape)
    payloads = [codec.encode(carry) for codec in MIN_MAX]
    restored = [
        codec.decode(payload, shape) for codec, payload in zip(MIN_MAX, payloads, strict=True)
    ]
    errors = [np.abs(carry - each).max() for each in restored]
    sizes = [len(payload) for payload in payloads]
    assert errors == sorted(errors)
    assert errors[0] < 1e-4 < errors[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


@by_name
def test_a_carry_arrives_as_it_was_quantised(codec):
    """Coding loses nothing of what the quantiser leaves."""
    carry = relu_carry(shape=(7, 5, 3))
    expected = codec.quantizer.dequantize(codec.quantizer.quantize(carry))
    assert (codec.decode(codec.encode(carry), carry.shape) == expected).all()


@by_name
def test_what_is_decoded_is_writable(codec):
    """The network may work in place on what it receives."""
    carry = relu_carry(shape=(3, 4, 4))
    assert codec.decode(codec.encode(carry), (3, 4, 4)).flags.writeable


@pytest.mark.parametrize("codec", MIN_MAX, ids=lambda codec: codec.name)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_carries_are_not_sent(codec, bad):
    """A carry with NaN or infinity is refused at the edge."""
    carry = relu_carry()
    carry[0, 0, 0] = bad
    with pytest.raises(CodecError, match="finite"):
        codec.encode(carry)


@by_name
@pytest.mark.parametrize(
    "shape", [(3, 4, 5), (2, 4, 4), (0, 4, 4), (-3, -4, 4), (65_535, 65_535, 65_535)]
)
def test_another_shape_is_refused(codec, shape):
    """A payload of (3, 4, 4) decodes to no other number of elements."""
    carry = np.arange(48, dtype=np.float32).reshape(3, 4, 4)
    payload = codec.encode(carry)
    with pytest.raises(CodecError, match="expected"):
        codec.decode(payload, shape)


@by_name
@given(payload=st.binary(max_size=80))
def test_garbage_raises_codec_error_only(codec, payload):
    """Random bytes decode to a finite tensor of the shape, or raise CodecError."""
    try:
        restored = codec.decode(payload, (3, 2, 3))
    except CodecError:
        return
    assert restored.shape == (3, 2, 3)
    assert np.isfinite(restored).all()


@by_name
def test_every_truncation_is_refused(codec):
    """No prefix of a payload decodes."""
    payload = codec.encode(np.arange(48, dtype=np.float32).astype(np.uint8).reshape(3, 4, 4))
    for size in range(len(payload)):
        with pytest.raises(CodecError):
            codec.decode(payload[:size], (3, 4, 4))


def test_names_tell_codecs_apart():
    """No two codecs share a name in a report."""
    assert len({codec.name for codec in CODECS}) == len(CODECS)
