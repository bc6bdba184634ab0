import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.coders import LZ4_EXPANSION, Lz4Coder
from xpi_ray.errors import CodecError


@given(data=st.binary(max_size=2_000))
def test_round_trip_is_exact_and_growth_bounded(data):
    """Any bytes come back as they were, from at most 1/255 and 16 bytes more."""
    encoded = Lz4Coder().encode(data)
    assert Lz4Coder().decode(encoded, len(data)) == data
    assert len(encoded) <= len(data) + len(data) // 255 + 16


def test_the_most_compressible_data_stay_below_the_expansion_limit():
    """Zeros, LZ4's best case, come back: the limit on expansion refuses no true block."""
    zeros = bytes(1_000_000)
    encoded = Lz4Coder().encode(zeros)
    assert len(zeros) / len(encoded) > 0.95 * LZ4_EXPANSION
    assert Lz4Coder().decode(encoded, len(zeros)) == zeros


@pytest.mark.parametrize("size_bytes", [0, 99, 101, 10_000, 2**40])
def test_another_size_than_declared_is_refused(size_bytes):
    """A good block of 100 bytes is refused when any other size is expected."""
    encoded = Lz4Coder().encode(bytes(range(100)))
    with pytest.raises(CodecError, match=str(size_bytes)):
        Lz4Coder().decode(encoded, size_bytes)


@given(data=st.binary(max_size=200), size_bytes=st.integers(0, 60_000))
def test_garbage_raises_codec_error_only(data, size_bytes):
    """Random bytes decode to exactly the size expected, or raise CodecError."""
    try:
        decoded = Lz4Coder().decode(data, size_bytes)
    except CodecError:
        return
    assert len(decoded) == size_bytes


def test_huge_sizes_allocate_nothing():
    """A few bytes that claim to be gigabytes cost no memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="can hold"):
            Lz4Coder().decode(b"\x00" * 64, 2**32)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
