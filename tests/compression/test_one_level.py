"""What other systems send: floats as they are, and SPINN's 8 bits, shuffled, through LZ4."""

import tracemalloc

import hypothesis.extra.numpy as npst
import lz4.block
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.one_level import FLOAT32, SHUFFLED_LZ4, OneLevel
from xpi_ray.errors import CodecError

SHAPES = {1: (3, 5, 3), 2: (2, 4, 4), 3: (6, 2, 1)}
KINDS = {"float32": FLOAT32, "shuffled_lz4": SHUFFLED_LZ4}
CODECS = {name: OneLevel(dict.fromkeys(SHAPES, codec), SHAPES) for name, codec in KINDS.items()}
by_name = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
VALUES = st.floats(-(2.0**100), 2.0**100, width=32)
CARRIES = npst.arrays(np.float32, SHAPES[1], elements=VALUES)


def relu_carry(shape=SHAPES[1]):
    """A carry as a ReLU leaves it: about half zeros."""
    return np.maximum(np.random.default_rng(0).normal(size=shape), 0).astype(np.float32)


@by_name
def test_there_is_one_level_of_one_segment(codec):
    """At every partition; whatever arrives is worth level 0."""
    assert codec.levels == 1
    for partition, shape in SHAPES.items():
        assert codec.levels_at(partition) == 1
        segments = codec.encode(relu_carry(shape), partition, 0)
        assert len(segments) == 1
        assert codec.arrived_level(segments, partition, 0) == 0


@given(carry=CARRIES)
def test_floats_arrive_as_they_are(carry):
    """To the last bit, little-endian and row-major, wherever the carry lies in memory."""
    codec = CODECS["float32"]
    laid_out = np.asfortranarray(carry)
    (segment,) = codec.encode(laid_out, 1, 0)
    assert segment == np.ascontiguousarray(carry).astype("<f4").tobytes()
    assert codec.decode([segment], 1, 0).tobytes() == np.ascontiguousarray(carry).tobytes()


@given(carry=CARRIES)
def test_eight_bits_are_half_a_step_off_at_most(carry):
    """The step is a 255th of the carry's own range."""
    arrived = CODECS["shuffled_lz4"].decode(CODECS["shuffled_lz4"].encode(carry, 1, 0), 1, 0)
    spread = float(carry.max()) - float(carry.min())
    most = float(np.abs(carry).max())
    assert (
        np.abs(arrived.astype(np.float64) - carry).max()
        <= spread / 510 + most * 2.0**-23 + 2.0**-149
    )


@given(carry=CARRIES)
def test_bits_are_shuffled_by_their_weight(carry):
    """Behind the range lies LZ4 of the highest bit of all values, then the next one of all."""
    (segment,) = CODECS["shuffled_lz4"].encode(carry, 1, 0)
    low, high = np.frombuffer(segment[:8], "<f4").astype(np.float64)
    scale = 255 / (high - low) if high > low else 0.0
    symbols = [round((float(value) - low) * scale) for value in carry.reshape(-1)]
    bits = "".join(str(symbol >> bit & 1) for bit in reversed(range(8)) for symbol in symbols)
    plain = int(bits, 2).to_bytes(len(symbols), "big")
    assert lz4.block.decompress(segment[8:], uncompressed_size=len(plain)) == plain


def test_sparse_carries_are_small():
    """A carry that is mostly zeros takes clearly less than a byte a value."""
    carry = np.maximum(np.random.default_rng(0).normal(-1, 1, (32, 16, 16)), 0).astype(np.float32)
    codec = OneLevel({1: SHUFFLED_LZ4}, {1: carry.shape})
    (segment,) = codec.encode(carry, 1, 0)
    assert len(segment) < 0.75 * carry.size


@by_name
def test_what_is_measured_is_what_is_sent(codec):
    """At all levels, which are one, the segments and the carry are those of serving."""
    for partition, shape in SHAPES.items():
        carry = relu_carry(shape)
        ((segments, arrived),) = codec.at_all_levels(carry, partition)
        assert segments == codec.encode(carry, partition, 0)
        np.testing.assert_array_equal(arrived, codec.decode(segments, partition, 0))
        assert arrived.flags.writeable
        assert arrived.dtype == np.float32


@by_name
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(codec, bad):
    """One of them is enough."""
    carry = relu_carry()
    carry[1, 2, 0] = bad
    with pytest.raises(CodecError, match="finite"):
        codec.encode(carry, 1, 0)


def test_floats_of_strangers_must_be_finite():
    """A payload of the right size that holds an infinity is refused."""
    payload = np.full(SHAPES[1], np.inf, "<f4").tobytes()
    with pytest.raises(CodecError, match="finite"):
        CODECS["float32"].decode([payload], 1, 0)


@by_name
def test_no_other_number_of_segments_is_read(codec):
    """None, or a second one, is refused."""
    (segment,) = codec.encode(relu_carry(), 1, 0)
    for segments in ([], [segment, segment]):
        with pytest.raises(CodecError, match=f"expected 1 segment, got {len(segments)}"):
            codec.decode(segments, 1, 0)


@by_name
def test_every_truncation_is_refused(codec):
    """No prefix of a segment decodes."""
    (segment,) = codec.encode(relu_carry(), 1, 0)
    for size in range(len(segment)):
        with pytest.raises(CodecError):
            codec.decode([segment[:size]], 1, 0)


@by_name
@given(payload=st.binary(max_size=200))
def test_bytes_of_strangers_decode_or_are_refused(codec, payload):
    """Random bytes make a finite carry or a CodecError, nothing else."""
    decode_or_refuse(codec, payload)


@by_name
@given(carry=CARRIES, data=st.data())
def test_flipped_bits_decode_or_are_refused(codec, carry, data):
    """So does a good segment with a bit changed."""
    payload = bytearray(codec.encode(carry, 1, 0)[0])
    place = data.draw(st.integers(0, 8 * len(payload) - 1))
    payload[place // 8] ^= 1 << place % 8
    decode_or_refuse(codec, bytes(payload))


def decode_or_refuse(codec, payload):
    """Check what comes of a stranger's payload."""
    try:
        arrived = codec.decode([payload], 1, 0)
    except CodecError:
        return
    assert arrived.shape == SHAPES[1]
    assert np.isfinite(arrived).all()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_huge_shapes_allocate_nothing(kind):
    """A few bytes where gigabytes are expected cost no memory."""
    codec = OneLevel({1: kind}, {1: (2**12, 2**10, 2**10)})
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="expected"):
            codec.decode([bytes(64)], 1, 0)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_partition_without_a_codec_sends_nothing():
    """Nothing is encoded or decoded there; measurements take its carry as it is."""
    codec = OneLevel({2: SHUFFLED_LZ4}, SHAPES)
    assert [codec.levels_at(partition) for partition in SHAPES] == [0, 1, 0]
    carry = relu_carry()
    with pytest.raises(CodecError, match="after block 2 only, not after block 1"):
        codec.encode(carry, 1, 0)
    with pytest.raises(CodecError, match="after block 2 only, not after block 1"):
        codec.decode([carry.tobytes()], 1, 0)
    ((segments, arrived),) = codec.at_all_levels(carry, 1)
    assert [len(segment) for segment in segments] == [carry.nbytes]
    np.testing.assert_array_equal(arrived, carry)
    codec.warm_up(0)


@by_name
def test_warming_up_changes_no_segment(codec):
    """What is sent afterwards is what would have been sent before."""
    before = codec.encode(relu_carry(), 1, 0)
    codec.warm_up(0)
    assert codec.encode(relu_carry(), 1, 0) == before
