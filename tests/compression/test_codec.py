import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.codec import IMAGE_CODEC, LADDER
from xpi_ray.errors import CodecError

CODECS = [*LADDER, IMAGE_CODEC]
by_name = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


def relu_carry(seed=0, shape=(32, 16, 16)):
    """A carry as a ReLU leaves it: about half zeros."""
    return np.maximum(np.random.default_rng(seed).normal(size=shape), 0).astype(np.float32)


@pytest.mark.parametrize("shape", [(32, 16, 16), (64, 8, 8), (3, 1, 5)])
def test_each_rung_is_coarser_and_smaller(shape):
    """Down the ladder, the error rises and the payload shrinks."""
    carry = relu_carry(shape=shape)
    payloads = [codec.encode(carry) for codec in LADDER]
    restored = [
        codec.decode(payload, shape) for codec, payload in zip(LADDER, payloads, strict=True)
    ]
    errors = [np.abs(carry - each).max() for each in restored]
    sizes = [len(payload) for payload in payloads]
    assert errors == sorted(errors)
    assert errors[0] < 1e-4 < errors[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


@given(shape=st.tuples(st.just(3), st.integers(1, 20), st.integers(1, 20)), seed=st.integers(0, 99))
def test_images_are_exact(shape, seed):
    """Pixels come back as they were."""
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    restored = IMAGE_CODEC.decode(IMAGE_CODEC.encode(image), shape)
    assert restored.dtype == np.uint8
    assert (restored == image).all()


@by_name
def test_what_is_decoded_is_writable(codec):
    """The network may work in place on what it receives."""
    carry = relu_carry(shape=(3, 4, 4))
    if codec is IMAGE_CODEC:
        carry = carry.astype(np.uint8)
    assert codec.decode(codec.encode(carry), (3, 4, 4)).flags.writeable


@pytest.mark.parametrize("codec", LADDER, ids=lambda codec: codec.name)
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
    carry = np.arange(48, dtype=np.uint8 if codec is IMAGE_CODEC else np.float32).reshape(3, 4, 4)
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
