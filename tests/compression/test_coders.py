import tracemalloc

import hypothesis.extra.numpy as npst
import ncompress
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.coders import (
    LZ4_EXPANSION,
    HuffmanCoder,
    Lz4Coder,
    LzwCoder,
    pack,
    packed_bytes,
    unpack,
)
from xpi_ray.errors import CodecError

CODERS = [Lz4Coder(), Lz4Coder(shuffled=True), LzwCoder(), HuffmanCoder()]
by_name = pytest.mark.parametrize("coder", CODERS, ids=lambda coder: coder.name)
SHAPES = st.tuples(*[st.integers(1, 6)] * 3)
ALPHABETS = st.sampled_from([2, 3, 4, 8, 13, 16, 17, 100, 256, 257, 4096, 65_536])


@st.composite
def carries(draw):
    """Symbols of any shape and alphabet, and the alphabet; few or all of its symbols occur."""
    alphabet, shape = draw(ALPHABETS), draw(SHAPES)
    kinds = draw(st.integers(1, alphabet))
    dtype = np.uint8 if alphabet <= 256 else np.uint16
    return draw(npst.arrays(dtype, shape, elements=st.integers(0, kinds - 1))), alphabet


def test_three_bits_cross_the_borders_of_bytes():
    """5, 3, 7 at 3 bits are 101 011 111, and seven zeros fill the second byte."""
    assert pack(np.array([5, 3, 7], np.uint8), 3) == bytes([0b10101111, 0b10000000])


def test_four_bits_lie_two_to_a_byte():
    """The first in the high half, and an odd one is followed by zeros."""
    assert pack(np.array([0, 15, 1, 2, 7], np.uint8), 4) == b"\x0f\x12\x70"


def test_wide_symbols_send_their_high_bits_first():
    """At 12 bits two nibbles of 0x1ab and 0x2cd, then their low bytes."""
    assert pack(np.array([0x1AB, 0x2CD], np.uint16), 12) == b"\x12\xab\xcd"


def test_planes_begin_with_the_highest_bit():
    """Of 3, 0, 1 at 2 bits: 100, then 101."""
    assert pack(np.array([3, 0, 1], np.uint8), 2, planes=True) == bytes([0b10010100])


@pytest.mark.parametrize("planes", [False, True])
@given(bits=st.integers(1, 16), data=st.data())
def test_packed_symbols_come_back(planes, bits, data):
    """Any symbols, from exactly the bytes that were announced."""
    elements = st.integers(0, 2**bits - 1)
    symbols = data.draw(npst.arrays(np.uint16, st.integers(1, 40), elements=elements))
    packed = pack(symbols, bits, planes=planes)
    assert len(packed) == packed_bytes(len(symbols), bits)
    assert (unpack(packed, bits, len(symbols), planes=planes) == symbols).all()


@by_name
@given(carry=carries())
def test_round_trip_is_exact_and_growth_bounded(coder, carry):
    """Any symbols come back as they were, from at most 1.5 times and 16 bytes more than packed."""
    symbols, alphabet = carry
    encoded = coder.encode(symbols, alphabet)
    decoded = coder.decode(encoded, symbols.shape, alphabet)
    assert decoded.dtype == symbols.dtype
    assert (decoded == symbols).all()
    assert len(encoded) <= 1.5 * packed_bytes(symbols.size, coder.width(alphabet)) + 16


@by_name
@pytest.mark.parametrize("alphabet", [4, 256])
def test_the_most_compressible_data_stay_below_the_expansion_limit(coder, alphabet):
    """A million zeros come back: the limit on expansion refuses no true data."""
    zeros = np.zeros((1, 1000, 1000), np.uint8)
    encoded = coder.encode(zeros, alphabet)
    assert not coder.decode(encoded, zeros.shape, alphabet).any()
    if coder.name.startswith("lz4"):
        assert packed_bytes(zeros.size, coder.width(alphabet)) / len(encoded) > 0.9 * LZ4_EXPANSION


@by_name
def test_few_kinds_of_symbols_take_few_bytes(coder):
    """Of symbols that are mostly zero, every coder makes less than they were packed."""
    symbols = np.random.default_rng(0).choice(8, (20, 8, 8), p=[0.9, *[0.1 / 7] * 7])
    assert len(coder.encode(symbols.astype(np.uint8), 8)) < 0.85 * packed_bytes(symbols.size, 3)


@by_name
@pytest.mark.parametrize(
    "shape", [(1, 10, 9), (1, 10, 11), (0, 10, 10), (-1, -10, 10), (2**20, 2**20, 1)]
)
def test_another_shape_is_refused(coder, shape):
    """Good data for 100 symbols are refused when any other number is expected."""
    symbols = np.arange(100, dtype=np.uint8).reshape(1, 10, 10)
    with pytest.raises(CodecError, match="expected"):
        coder.decode(coder.encode(symbols, 256), shape, 256)


@by_name
def test_symbols_beyond_the_alphabet_are_refused(coder):
    """A symbol 7 is no symbol of an alphabet of 5, though 3 bits hold it."""
    data = coder.encode(np.full((1, 4, 4), 7, np.uint8), 8)
    with pytest.raises(CodecError, match="below 5, got 7"):
        coder.decode(data, (1, 4, 4), 5)


@by_name
@pytest.mark.parametrize("alphabet", [0, 1, 65_537])
def test_other_alphabets_are_refused(coder, alphabet):
    """An alphabet has 2 to 65,536 symbols."""
    with pytest.raises(CodecError, match="alphabet of 2"):
        coder.encode(np.zeros((1, 1, 1), np.uint8), alphabet)
    with pytest.raises(CodecError, match="alphabet of 2"):
        coder.decode(b"abc", (1, 1, 1), alphabet)


@by_name
@given(data=st.binary(max_size=200), shape=SHAPES, alphabet=ALPHABETS)
def test_garbage_raises_codec_error_only(coder, data, shape, alphabet):
    """Random bytes decode to symbols of the alphabet in the shape, or raise CodecError."""
    try:
        decoded = coder.decode(data, shape, alphabet)
    except CodecError:
        return
    assert decoded.shape == shape
    assert (decoded < alphabet).all()


@by_name
@given(carry=carries(), data=st.data())
def test_damage_raises_codec_error_only(coder, carry, data):
    """Good data with a byte changed decode to symbols of the alphabet, or raise CodecError."""
    symbols, alphabet = carry
    encoded = bytearray(coder.encode(symbols, alphabet))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = coder.decode(bytes(encoded), symbols.shape, alphabet)
    except CodecError:
        return
    assert (decoded < alphabet).all()


@by_name
@pytest.mark.parametrize("size", [63, 64])
def test_huge_shapes_allocate_nothing(coder, size):
    """A few bytes that claim to be gigabytes cost no memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="can hold"):
            coder.decode(bytes(size), (2**12, 2**10, 2**10), 256)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@by_name
def test_a_bomb_is_not_unfolded(coder):
    """Ten million zeros where 4,096 symbols are expected cost memory for these and the data."""
    bomb = coder.encode(np.zeros((1, 1000, 10_000), np.uint8), 256)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="expected"):
            coder.decode(bomb, (1, 64, 64), 256)
        assert tracemalloc.get_traced_memory()[1] < 100_000 + 2 * len(bomb)
    finally:
        tracemalloc.stop()


def test_lzw_is_that_of_the_unix_tool():
    """With its header put back, ``compress`` would read it."""
    symbols = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    data = LzwCoder().encode(symbols, 256)
    assert ncompress.decompress(b"\x1f\x9d\x90" + data) == symbols.tobytes()


def test_names_tell_coders_apart():
    """No two coders share a name in a report."""
    assert len({coder.name for coder in CODERS}) == len(CODERS)
