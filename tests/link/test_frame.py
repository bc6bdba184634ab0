import struct
import tracemalloc
import zlib

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.errors import FrameError
from xpi_ray.link.frame import (
    HEADER_BYTES,
    MAX_CARRY_ELEMENTS,
    MAX_CLASSES,
    MAX_FRAME_BYTES,
    Frame,
    pack,
    unpack,
)

SMALL = Frame(
    b"8 bytes.", 3, 1, (4, 2, 5), np.array([0.5, -1.25, 3.0], np.float32), b"payload bytes"
)
U32 = st.integers(0, 2**32 - 1)


@st.composite
def frames(draw):
    """Any frame within the limits."""
    partition = draw(st.integers(0, 65_535))
    elements = st.floats(width=32, allow_nan=False, allow_infinity=False)
    classes = draw(st.integers(1, 50)) if partition else 0
    return Frame(
        draw(st.binary(min_size=8, max_size=8)),
        partition,
        draw(st.integers(0, 255)),
        draw(st.tuples(*[st.integers(1, 160)] * 3)),
        draw(npst.arrays(np.float32, classes, elements=elements)),
        draw(st.binary(max_size=300)),
    )


def seal(version, level, partition, shape, classes, payload_bytes, body, magic=b"XPIF"):
    """Bytes with a right checksum, laid out by hand as the module's table says."""
    fields = struct.pack(
        ">4sBBH8sIIIII", magic, version, level, partition, b"8 bytes.", *shape, classes,
        payload_bytes,
    )  # fmt: skip
    return fields + struct.pack(">I", zlib.crc32(fields + body)) + body


@given(frame=frames())
def test_round_trip_is_exact(frame):
    """What is packed is unpacked, bit for bit."""
    restored = unpack(pack(frame))
    assert restored.logits.dtype == np.float32
    assert restored.logits.tobytes() == frame.logits.tobytes()
    assert restored._replace(logits=None) == frame._replace(logits=None)


def test_layout_is_that_of_the_table():
    """The bytes are those that a reader of the docstring would write."""
    body = struct.pack(">3f", 0.5, -1.25, 3.0) + b"payload bytes"
    assert pack(SMALL) == seal(1, 1, 3, (4, 2, 5), 3, 13, body)
    assert HEADER_BYTES == 40


def test_every_truncation_is_refused():
    """No prefix of a frame is a frame."""
    data = pack(SMALL)
    for size in range(len(data)):
        with pytest.raises(FrameError):
            unpack(data[:size])


def test_trailing_bytes_are_refused():
    """A frame is all of the bytes."""
    with pytest.raises(FrameError, match="as the header says"):
        unpack(pack(SMALL) + b"\x00")


def test_every_damaged_byte_is_noticed():
    """No byte can change to any other value unnoticed."""
    data = pack(SMALL)
    for place in range(len(data)):
        for flip in range(1, 256):
            damaged = bytearray(data)
            damaged[place] ^= flip
            with pytest.raises(FrameError):
                unpack(bytes(damaged))


@given(data=st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"XPIF\1" + tail))
def test_random_bytes_raise_frame_error_only(data):
    """Bytes that are no frame are refused as such."""
    with pytest.raises(FrameError):
        unpack(data)


@given(
    level=st.integers(0, 255),
    partition=st.integers(0, 65_535),
    shape=st.tuples(U32, U32, U32) | st.tuples(*[st.integers(0, 200)] * 3),
    classes=U32 | st.integers(0, 5),
    payload_bytes=U32 | st.integers(0, 20),
    body=st.binary(max_size=40),
)
def test_hostile_headers_with_a_right_checksum_do_no_harm(
    level, partition, shape, classes, payload_bytes, body
):
    """Whatever a header declares, what is read is within the limits or FrameError is raised."""
    try:
        frame = unpack(seal(1, level, partition, shape, classes, payload_bytes, body))
    except FrameError:
        return
    assert frame.shape == shape
    assert 1 <= np.prod(shape) <= MAX_CARRY_ELEMENTS
    assert 4 * frame.logits.size + len(frame.payload) == len(body)
    assert np.isfinite(frame.logits).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (seal(1, 0, 0, (3, 2, 2), 0, 1, b"x", magic=b"HTTP"), "begin with"),
        (seal(2, 0, 0, (3, 2, 2), 0, 1, b"x"), "version 1, got 2"),
        (seal(0, 0, 0, (3, 2, 2), 0, 1, b"x"), "version 1, got 0"),
        (seal(1, 0, 0, (3, 0, 2), 0, 1, b"x"), "elements"),
        (seal(1, 0, 0, (1, 1, MAX_CARRY_ELEMENTS + 1), 0, 1, b"x"), "elements"),
        (seal(1, 0, 0, (2**32 - 1,) * 3, 0, 1, b"x"), "elements"),
        (seal(1, 0, 1, (3, 2, 2), 2**32 - 1, 1, b"x"), "logits"),
        (seal(1, 0, 1, (3, 2, 2), MAX_CLASSES + 1, 1, b"x"), "logits"),
        (seal(1, 0, 1, (3, 2, 2), 0, 1, b"x"), "logits"),
        (seal(1, 0, 0, (3, 2, 2), 1, 1, b"xxxxx"), "logits"),
        (seal(1, 0, 0, (3, 2, 2), 0, 2**32 - 1, b"x"), "at most"),
        (seal(1, 0, 0, (3, 2, 2), 0, MAX_FRAME_BYTES, b"x"), "at most"),
        (seal(1, 0, 0, (3, 2, 2), 0, 2, b"x"), "as the header says"),
        (seal(1, 0, 1, (3, 2, 2), 1, 1, struct.pack(">f", np.nan) + b"x"), "finite"),
        (seal(1, 0, 1, (3, 2, 2), 1, 1, struct.pack(">f", np.inf) + b"x"), "finite"),
    ],
)
def test_each_broken_rule_is_named(data, message):
    """The message says which rule the frame breaks, though its checksum is right."""
    with pytest.raises(FrameError, match=message):
        unpack(data)


def test_huge_declared_sizes_allocate_nothing():
    """A small frame that claims gigabytes costs no memory."""
    claims = [((2**32 - 1,) * 3, 1, 1), ((1, 1, 1), 2**32 - 1, 1), ((1, 1, 1), 1, 2**32 - 1)]
    tracemalloc.start()
    try:
        for shape, classes, payload_bytes in claims:
            with pytest.raises(FrameError):
                unpack(seal(1, 0, 1, shape, classes, payload_bytes, b"x"))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_too_many_bytes_are_refused():
    """The limit on a frame holds before anything in it is read."""
    with pytest.raises(FrameError, match=str(MAX_FRAME_BYTES)):
        unpack(bytes(MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"bundle_digest": b"short"},
        {"partition": 65_536},
        {"partition": -1},
        {"partition": 0},
        {"level": 256},
        {"shape": (4, 0, 5)},
        {"shape": (-4, -2, 5)},
        {"shape": (4, 2, MAX_CARRY_ELEMENTS)},
        {"logits": np.zeros(0, np.float32)},
        {"logits": np.zeros(MAX_CLASSES + 1, np.float32)},
        {"logits": np.array([0, np.nan], np.float32)},
        {"payload": bytes(MAX_FRAME_BYTES)},
    ],
    ids=lambda change: str(change)[:40],
)
def test_nothing_is_packed_that_would_not_unpack(change):
    """The writer refuses what the reader would refuse."""
    with pytest.raises(FrameError, match="expected"):
        pack(SMALL._replace(**change))
