import random

import pytest

from benchmarks import fuzz
from xpi_ray.bundle import Bundle
from xpi_ray.errors import XpiError

NAMES = ["frame", "segments", "image", "lz4", "lzw", "huffman"]


@pytest.fixture(scope="module")
def default():
    """The packaged bundle."""
    return Bundle.load()


def test_every_target_is_known(default):
    """The names are those of the result."""
    assert list(fuzz.targets(default)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_read_and_damaged_ones_refused_or_read(default, name):
    """A seed passes its reader, so the fuzzer starts behind the first check; damage is no crash."""
    read = fuzz.targets(default)[name]
    rng = random.Random(0)
    for seed in fuzz.seeds(default, name):
        assert len(seed) <= fuzz.LONGEST_INPUT_BYTES
        assert read(seed) is not None
        for _ in range(20):
            damaged = bytearray(seed)
            damaged[rng.randrange(len(seed))] ^= 1 << rng.randrange(8)
            try:
                read(bytes(damaged))
            except XpiError:
                continue
