"""Byte layout of one frame on the link.

    edge: logits, segments ─► pack ─► bytes ══ link ══► unpack ─► logits, segments: cloud
                               └► cut: as many leading segments as there is time for

Version 2. Integers and logits are big-endian; what segments hold is their codec's affair.

    offset   size  field
         0      4  magic "XPIF"
         4      1  version
         5      1  level
         6      2  partition
         8      8  bundle digest
        16      2  K, number of logits
        18      4  S, size of all segments in bytes, with what stands before each
        22      4  CRC-32 of all bytes above, and of the logits
        26    2·K  logits, float16
    26+2·K      S  segments: size (LEB128, 1 to 4 bytes), CRC-32 of what follows, its bytes

Segments can be read one by one. A frame that ends early still says what its whole segments say.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.errors import FrameError

MAGIC = b"XPIF"
VERSION = 2
DIGEST_BYTES = 8
MAX_FRAME_BYTES = 16 * 2**20
MAX_CLASSES = 65_535
MAX_SEGMENTS = 64
SIZE_BYTES = 4  # of a segment's size at most: 28 bits
LARGEST_LOGIT = 60_000.0  # beyond it a softmax is 0 or 1 anyway, and float16 infinite

_FIELDS = struct.Struct(f">{len(MAGIC)}sBBH{DIGEST_BYTES}sHI")
_CHECKSUM = struct.Struct(">I")
HEADER_BYTES = _FIELDS.size + _CHECKSUM.size


class Frame(NamedTuple):
    """All that the cloud needs to go on after block ``partition``, for one image."""

    bundle_digest: bytes
    """First 8 bytes of the bundle's SHA-256: both sides surely hold the same network and codecs."""
    partition: int
    """Blocks that ran, 0..65535."""
    level: int
    """Rung of the ladder that made the segments, 0..255."""
    logits: NDArray[np.float32]
    """Fused logits of exit ``partition``, (K,); (0,) at partition 0, where none exists, and of a
    network whose later blocks do not read them."""
    segments: tuple[bytes, ...]
    """The carry, or the image at partition 0, encoded; 1..64."""


def pack(frame: Frame) -> bytes:
    """Lay a frame out as bytes; logits are rounded to 16 bits.

    Raises:
        FrameError: The frame breaks a limit, so that no reader would take it.
    """
    digest, partition, level, logits, segments = frame
    if len(digest) != DIGEST_BYTES:
        raise FrameError(f"expected a digest of 8 bytes, got {len(digest)}")
    if not 1 <= len(segments) <= MAX_SEGMENTS:
        raise FrameError(f"expected 1..{MAX_SEGMENTS} segments, got {len(segments)}")
    _check_finite(logits)
    rounded = logits.clip(-LARGEST_LOGIT, LARGEST_LOGIT).astype(">f2")
    body = b"".join(map(_sealed, segments))
    _check_sizes(partition, logits.size, len(body))
    try:
        fields = _FIELDS.pack(MAGIC, VERSION, level, partition, digest, logits.size, len(body))
    except struct.error as err:
        raise FrameError(
            f"expected a partition of 0..65535 and a level of 0..255, got {partition} and {level}"
        ) from err
    return _with_checksum(fields, rounded.tobytes()) + body


def unpack(data: bytes) -> Frame:
    """Read a frame; whatever is declared is checked before anything of its size is made.

    Args:
        data: A whole frame, or the beginning of one that was cut short on the way.

    Raises:
        FrameError: It is no frame within the limits, or ends before its first segment does.
    """
    level, partition, digest, classes, body_bytes = _read_header(data)
    start = HEADER_BYTES + 2 * classes
    if len(data) > start + body_bytes:
        raise FrameError(
            f"expected at most {start + body_bytes} bytes, as the header says, got {len(data)}"
        )
    logits = np.frombuffer(data, ">f2", classes, HEADER_BYTES).astype(np.float32)
    _check_finite(logits)
    segments, read = list[bytes](), start
    for begin, end in _places(data, start):
        (declared,) = _CHECKSUM.unpack_from(data, begin - _CHECKSUM.size)
        _check_checksum(declared, zlib.crc32(memoryview(data)[begin:end]))
        segments.append(data[begin:end])
        read = end
    if len(data) == start + body_bytes and read != len(data):
        raise FrameError(f"expected segments to end with the frame, at {len(data)}, not at {read}")
    if not segments:
        raise FrameError(f"expected a whole segment in {len(data)} bytes; the frame was cut short")
    return Frame(digest, partition, level, logits, tuple(segments))


def cut(data: bytes, most_bytes: float) -> bytes:
    """A frame with only those leading segments of one that fit into ``most_bytes``.

    The first is always left. ``data`` must be a frame that ``pack`` made.
    """
    _, _, _, classes, _ = _read_header(data)
    start = HEADER_BYTES + 2 * classes
    ends = [end for _, end in _places(data, start)]
    kept = max([ends[0], *(end for end in ends if end <= most_bytes)])
    if kept == len(data):
        return data
    fields = data[: _FIELDS.size - 4] + struct.pack(">I", kept - start)
    return _with_checksum(fields, data[HEADER_BYTES:start]) + data[start:kept]


def _sealed(segment: bytes) -> bytes:
    """A segment behind its size and checksum."""
    size, head = len(segment), bytearray()
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    if len(head) > SIZE_BYTES:
        raise FrameError(f"expected segments below 2^28 bytes, got {len(segment)}")
    return bytes(head) + _CHECKSUM.pack(zlib.crc32(segment)) + segment


def _places(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Where whole segments begin and end; FrameError if there are too many, or sizes are none."""
    for _ in range(MAX_SEGMENTS):
        size, shift = 0, 0
        while True:
            if start >= len(data):
                return
            byte = data[start]
            start, size, shift = start + 1, size | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
            if shift >= 7 * SIZE_BYTES:
                raise FrameError(f"expected a segment's size in {SIZE_BYTES} bytes at most")
        begin = start + _CHECKSUM.size
        start = begin + size
        if start > len(data):
            return
        yield begin, start
    if start < len(data):
        raise FrameError(f"expected at most {MAX_SEGMENTS} segments, got more")


def _read_header(data: bytes) -> tuple[int, int, bytes, int, int]:
    """Level, partition, digest, classes, size of the segments; all checked."""
    if not HEADER_BYTES <= len(data) <= MAX_FRAME_BYTES:
        raise FrameError(
            f"expected a frame of {HEADER_BYTES}..{MAX_FRAME_BYTES} bytes, got {len(data)}"
        )
    magic, version, level, partition, digest, classes, body_bytes = _FIELDS.unpack_from(data)
    if magic != MAGIC:
        raise FrameError(f"expected a frame to begin with {MAGIC!r}, got {magic!r}")
    if version != VERSION:
        raise FrameError(
            f"expected a frame of version {VERSION}, got {version}; "
            "run the same version of xpi_ray at the edge and in the cloud"
        )
    _check_sizes(partition, classes, body_bytes)
    logits_end = HEADER_BYTES + 2 * classes
    if len(data) < logits_end:
        raise FrameError(f"expected {classes} logits, got {len(data)} bytes in all")
    (declared,) = _CHECKSUM.unpack_from(data, _FIELDS.size)
    view = memoryview(data)
    found = zlib.crc32(view[HEADER_BYTES:logits_end], zlib.crc32(view[: _FIELDS.size]))
    _check_checksum(declared, found)
    return level, partition, digest, classes, body_bytes


def _with_checksum(fields: bytes, logits: bytes) -> bytes:
    return fields + _CHECKSUM.pack(zlib.crc32(logits, zlib.crc32(fields))) + logits


def _check_sizes(partition: int, classes: int, body_bytes: int) -> None:
    if classes > MAX_CLASSES or (classes and not partition):
        raise FrameError(
            f"expected at most {MAX_CLASSES} logits, and none at partition 0, "
            f"got {classes} at partition {partition}"
        )
    frame_bytes = HEADER_BYTES + 2 * classes + body_bytes
    if frame_bytes > MAX_FRAME_BYTES:
        raise FrameError(f"expected at most {MAX_FRAME_BYTES} bytes, got {frame_bytes}")


def _check_checksum(declared: int, found: int) -> None:
    if found != declared:
        raise FrameError(
            f"expected checksum {declared:08x}, found {found:08x}: damaged on the way; send again"
        )


def _check_finite(logits: NDArray[np.floating[Any]]) -> None:
    if not np.isfinite(logits).all():
        raise FrameError("expected finite logits, got NaN or infinity")
