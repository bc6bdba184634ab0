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
    LARGEST_LOGIT,
    MAX_CLASSES,
    MAX_FRAME_BYTES,
    MAX_SEGMENTS,
    Frame,
    cut,
    pack,
    unpack,
)

SMALL = Frame(
    b"8 bytes.", 3, 1, np.array([0.5, -1.25, 3.0], np.float32), (b"first", b"", b"third one")
)
U32 = st.integers(0, 2**32 - 1)


@st.composite
def frames(draw):
    """Any frame within the limits, whose logits 16 bits hold."""
    partition = draw(st.integers(0, 65_535))
    elements = st.floats(-LARGEST_LOGIT, LARGEST_LOGIT, width=16)
    classes = draw(st.integers(0, 50)) if partition else 0
    return Frame(
        draw(st.binary(min_size=8, max_size=8)),
        partition,
        draw(st.integers(0, 255)),
        draw(npst.arrays(np.float16, classes, elements=elements)).astype(np.float32),
        tuple(draw(st.lists(st.binary(max_size=300), min_size=1, max_size=6))),
    )


def sealed(segment):
    """A short segment as the module's table says."""
    return bytes([len(segment)]) + struct.pack(">I", zlib.crc32(segment)) + segment


def seal(version, level, partition, classes, body_bytes, logits, body=b"", magic=b"XPIF"):
    """Bytes with a right checksum, laid out by hand as the module's table says."""
    fields = struct.pack(
        ">4sBBH8sHI", magic, version, level, partition, b"8 bytes.", classes, body_bytes
    )
    return fields + struct.pack(">I", zlib.crc32(fields + logits)) + logits + body


@given(frame=frames())
def test_round_trip_is_exact(frame):
    """What is packed is unpacked, bit for bit."""
    restored = unpack(pack(frame))
    assert restored.logits.dtype == np.float32
    assert restored.logits.tobytes() == frame.logits.tobytes()
    assert restored._replace(logits=None) == frame._replace(logits=None)


def test_layout_is_that_of_the_table():
    """The bytes are those that a reader of the docstring would write."""
    logits = struct.pack(">3e", 0.5, -1.25, 3.0)
    body = b"".join(map(sealed, SMALL.segments))
    assert pack(SMALL) == seal(2, 1, 3, 3, len(body), logits, body)
    assert HEADER_BYTES == 26


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
def test_segments_of_any_size_come_back(size):
    """On both sides of where their size takes one byte more."""
    segments = (bytes(size), b"behind")
    assert unpack(pack(SMALL._replace(segments=segments))).segments == segments


def test_large_logits_stay_finite():
    """Beyond what 16 bits hold they are cut, which changes no softmax."""
    logits = np.array([1e30, -1e30, 7.0], np.float32)
    restored = unpack(pack(SMALL._replace(logits=logits))).logits
    assert restored == pytest.approx([LARGEST_LOGIT, -LARGEST_LOGIT, 7.0], rel=1e-3)


def test_a_frame_that_ends_early_says_what_its_whole_segments_say():
    """Every prefix gives the segments that are whole in it, and none before the first is."""
    data = pack(SMALL)
    ends = HEADER_BYTES + 6 + np.cumsum([len(sealed(each)) for each in SMALL.segments])
    for size in range(len(data)):
        whole = int((ends <= size).sum())
        if whole:
            assert unpack(data[:size]).segments == SMALL.segments[:whole]
        else:
            with pytest.raises(FrameError):
                unpack(data[:size])


@given(frame=frames(), most=st.integers(0, 2_000))
def test_a_cut_frame_has_the_leading_segments_that_fit(frame, most):
    """It is a frame of its own, the first segment stays, and no further one would fit."""
    data = pack(frame)
    shorter = cut(data, most)
    restored = unpack(shorter)
    kept = len(restored.segments)
    assert restored.segments == frame.segments[:kept]
    assert shorter == pack(frame._replace(segments=frame.segments[:kept]))
    assert kept == 1 or len(shorter) <= most
    if kept < len(frame.segments):
        assert len(pack(frame._replace(segments=frame.segments[: kept + 1]))) > most


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


@given(data=st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"XPIF\2" + tail))
def test_random_bytes_raise_frame_error_only(data):
    """Bytes that are no frame are refused as such."""
    with pytest.raises(FrameError):
        unpack(data)


@given(
    level=st.integers(0, 255),
    partition=st.integers(0, 65_535),
    classes=st.integers(0, 65_535) | st.integers(0, 5),
    body_bytes=U32 | st.integers(0, 40),
    logits=st.binary(max_size=20),
    body=st.binary(max_size=40),
)
def test_hostile_headers_with_a_right_checksum_do_no_harm(
    level, partition, classes, body_bytes, logits, body
):
    """Whatever a header declares, what is read is within the limits or FrameError is raised."""
    try:
        frame = unpack(seal(2, level, partition, classes, body_bytes, logits, body))
    except FrameError:
        return
    assert frame.logits.size == classes
    assert sum(map(len, frame.segments)) <= len(logits) + len(body)
    assert np.isfinite(frame.logits).all()


ONE = sealed(b"x")
NAN, INF = struct.pack(">e", np.nan), struct.pack(">e", np.inf)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (seal(2, 0, 0, 0, 6, b"", ONE, magic=b"HTTP"), "begin with"),
        (seal(1, 0, 0, 0, 6, b"", ONE), "version 2, got 1"),
        (seal(3, 0, 0, 0, 6, b"", ONE), "version 2, got 3"),
        (seal(2, 0, 0, 1, 6, b"\0\0", ONE), "logits"),
        (seal(2, 0, 1, 9, 6, b"\0\0", ONE), "expected 9 logits"),
        (seal(2, 0, 0, 0, 2**32 - 1, b"", ONE), "at most"),
        (seal(2, 0, 0, 0, MAX_FRAME_BYTES, b"", ONE), "at most"),
        (seal(2, 0, 0, 0, 5, b"", ONE), "as the header says"),
        (seal(2, 0, 0, 0, 7, b"", ONE[:-1]), "whole segment"),
        (seal(2, 0, 0, 0, 8, b"", ONE + b"\7\0"), "end with the frame"),
        (seal(2, 0, 0, 0, 9, b"", b"\xff\xff\xff\xff\1"), "size in 4 bytes"),
        (seal(2, 0, 0, 0, 6, b"", b"\1\0\0\0\0x"), "damaged"),
        (seal(2, 0, 0, 0, 1000, b"", sealed(b"") * (MAX_SEGMENTS + 1)), "at most 64 segments"),
        (seal(2, 0, 1, 1, 6, NAN, ONE), "finite"),
        (seal(2, 0, 1, 1, 6, INF, ONE), "finite"),
    ],
)
def test_each_broken_rule_is_named(data, message):
    """The message says which rule the frame breaks, though its checksum is right."""
    with pytest.raises(FrameError, match=message):
        unpack(data)


def test_huge_declared_sizes_allocate_nothing():
    """A small frame that claims gigabytes costs no memory."""
    claims = [
        seal(2, 0, 1, 65_535, 1, b"x"),
        seal(2, 0, 1, 1, 2**32 - 1, b"xx"),
        seal(2, 0, 0, 0, MAX_FRAME_BYTES // 2, b"", b"\xff\xff\xff\x7f" + bytes(4)),
    ]
    tracemalloc.start()
    try:
        for data in claims:
            with pytest.raises(FrameError):
                unpack(data)
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
        {"logits": np.zeros(MAX_CLASSES + 1, np.float32)},
        {"logits": np.array([0, np.nan], np.float32)},
        {"logits": np.array([0, np.inf], np.float32)},
        {"segments": ()},
        {"segments": (b"",) * (MAX_SEGMENTS + 1)},
        {"segments": (bytes(MAX_FRAME_BYTES),)},
    ],
    ids=lambda change: str(change)[:40],
)
def test_nothing_is_packed_that_would_not_unpack(change):
    """The writer refuses what the reader would refuse."""
    with pytest.raises(FrameError, match="expected"):
        pack(SMALL._replace(**change))
