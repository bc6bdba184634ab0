import numpy as np
import pytest

from benchmarks.carry_rate import MIN_MAX, by_centres, by_min_max, entropy_bytes
from xpi_ray.compression.centres import Centres


def test_equally_frequent_symbols_need_whole_bits():
    """1,024 symbols of 4 kinds, equally often, have 2 bits each: 256 bytes; of one kind, none."""
    assert entropy_bytes(np.array([256, 256, 0, 256, 256])) == pytest.approx(256)
    assert entropy_bytes(np.array([0, 1024])) == 0


@pytest.mark.parametrize("codec", MIN_MAX, ids=lambda codec: codec.name)
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
