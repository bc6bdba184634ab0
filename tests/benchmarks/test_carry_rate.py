import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.carry_rate import by_centres, by_min_max, entropy_bytes, pack, unpack
from xpi_ray.compression.centres import Centres
from xpi_ray.compression.codec import LADDER
from xpi_ray.compression.quantizer import MinMaxQuantizer


def test_three_bits_cross_the_borders_of_bytes():
    """5, 3, 7 at 3 bits are 101 011 111, and seven zeros fill the second byte."""
    assert pack(np.array([5, 3, 7], np.uint8), 3) == bytes([0b10101111, 0b10000000])


@given(st.sampled_from([2, 3, 4]), st.data())
def test_packed_symbols_read_as_one_number(bits, data):
    """The bytes, less the filling, are the number whose digits to base 2^bits are the symbols."""
    symbols = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=40))
    number = sum(s << (bits * i) for i, s in enumerate(reversed(symbols)))
    packed = pack(np.array(symbols, np.uint8), bits)
    assert len(packed) == -(-bits * len(symbols) // 8)
    assert int.from_bytes(packed) >> (8 * len(packed) - bits * len(symbols)) == number


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_unpacking_gives_what_the_quantiser_laid_out(bits):
    """Values 0..2^bits - 1 are their own symbols, an odd number of them at 4 bits too."""
    values = np.array([0, 3, 2**bits - 1, 1, 2], np.float32)
    symbols = unpack(MinMaxQuantizer(bits).quantize(values).symbols, bits, 5)
    assert symbols.tolist() == values.tolist()


def test_equally_frequent_symbols_need_whole_bits():
    """1,024 symbols of 4 kinds, equally often, have 2 bits each: 256 bytes; of one kind, none."""
    assert entropy_bytes(np.array([256, 256, 0, 256, 256])) == pytest.approx(256)
    assert entropy_bytes(np.array([0, 1024])) == 0


@pytest.mark.parametrize("codec", LADDER, ids=lambda codec: codec.name)
def test_min_max_crosses_as_the_server_sends_it(codec):
    """Size and values are those of the ladder's own encoding and decoding."""
    carry = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32).clip(0)
    arrived, payload = by_min_max(codec)(carry), codec.encode(carry)
    assert arrived.payload_bytes == len(payload)
    np.testing.assert_array_equal(arrived.carry, codec.decode(payload, carry.shape))
    assert len(arrived.symbols) == carry.size


def test_a_carry_of_centres_arrives_unchanged():
    """Centres stand for themselves, and 4 kinds of symbols take at most 2 bits and LZ4's growth."""
    centres = Centres(4)
    carry = np.random.default_rng(0).choice([0, 1 / 3, 2 / 3, 1], (4, 6, 6)).astype(np.float32)
    arrived = by_centres(centres)(carry)
    np.testing.assert_allclose(arrived.carry, carry, atol=1e-7)
    assert arrived.payload_bytes <= carry.size / 4 + 16
