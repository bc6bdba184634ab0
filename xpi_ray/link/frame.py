"""Byte layout of one frame on the link.

    edge: carry, logits ─► pack ─► bytes ══ link ══► unpack ─► carry, logits: cloud

Version 1. Integers and logits are big-endian; what the payload holds is its codec's affair.

    offset   size  field
         0      4  magic "XPIF"
         4      1  version
         5      1  level
         6      2  partition
         8      8  bundle digest
        16     12  carry shape: C, h, w, 4 bytes each
        28      4  K, number of logits
        32      4  P, size of the payload in bytes
        36      4  CRC-32 of all other bytes
        40    4·K  logits, float32
    40+4·K      P  payload
"""

import math
import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.errors import FrameError

MAGIC = b"XPIF"
VERSION = 1
DIGEST_BYTES = 8
MAX_FRAME_BYTES = 16 * 2**20
MAX_CLASSES = 65_536
MAX_CARRY_ELEMENTS = 4 * 2**20  # VGG-16's largest carry at 224 x 224 has 3.2 million

_FIELDS = struct.Struct(f">{len(MAGIC)}sBBH{DIGEST_BYTES}sIIIII")
_CHECKSUM = struct.Struct(">I")
HEADER_BYTES = _FIELDS.size + _CHECKSUM.size


class Frame(NamedTuple):
    """All that the cloud needs to go on after block ``partition``, for one image."""

    bundle_digest: bytes
    """First 8 bytes of the bundle's SHA-256: both sides surely hold the same network."""
    partition: int
    """Blocks that ran, 0..65535."""
    level: int
    """Rung of the codec ladder that made the payload, 0..255."""
    shape: tuple[int, int, int]
    """(C, h, w) of the carry, or (3, H, W) of the image at partition 0."""
    logits: NDArray[np.float32]
    """Fused logits of exit ``partition``, (K,); (0,) at partition 0, where none exists."""
    payload: bytes
    """The carry, encoded."""


def pack(frame: Frame) -> bytes:
    """Lay a frame out as bytes.

    Raises:
        FrameError: The frame breaks a limit, so that no reader would take it.
    """
    _check_sizes(frame.partition, frame.shape, frame.logits.size, len(frame.payload))
    _check_finite(frame.logits)
    if len(frame.bundle_digest) != DIGEST_BYTES:
        raise FrameError(f"expected a digest of 8 bytes, got {len(frame.bundle_digest)}")
    digest, partition, level, shape, logits, payload = frame
    try:
        fields = _FIELDS.pack(
            MAGIC, VERSION, level, partition, digest, *shape, logits.size, len(payload)
        )
    except struct.error as err:
        raise FrameError(
            f"expected a partition of 0..65535 and a level of 0..255, got {partition} and {level}"
        ) from err
    body = logits.astype(">f4").tobytes() + payload
    return fields + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(fields))) + body


def unpack(data: bytes) -> Frame:
    """Read a frame; whatever is declared is checked before anything of its size is made.

    Raises:
        FrameError: ``data`` is not exactly one whole frame within the limits.
    """
    if not HEADER_BYTES <= len(data) <= MAX_FRAME_BYTES:
        raise FrameError(
            f"expected a frame of {HEADER_BYTES}..{MAX_FRAME_BYTES} bytes, got {len(data)}"
        )
    magic, version, level, partition, digest, *shape, classes, payload_bytes = _FIELDS.unpack_from(
        data
    )
    if magic != MAGIC:
        raise FrameError(f"expected a frame to begin with {MAGIC!r}, got {magic!r}")
    if version != VERSION:
        raise FrameError(
            f"expected a frame of version {VERSION}, got {version}; "
            "run the same version of xpi_ray at the edge and in the cloud"
        )
    channels, height, width = shape
    _check_sizes(partition, (channels, height, width), classes, payload_bytes)
    payload_offset = HEADER_BYTES + 4 * classes
    if len(data) != payload_offset + payload_bytes:
        raise FrameError(
            f"expected {payload_offset + payload_bytes} bytes, as the header says, got {len(data)}"
        )
    _check_checksum(data)
    logits = np.frombuffer(data, ">f4", classes, HEADER_BYTES).astype(np.float32)
    _check_finite(logits)
    payload = data[payload_offset:]
    return Frame(digest, partition, level, (channels, height, width), logits, payload)


def _check_sizes(
    partition: int, shape: tuple[int, int, int], classes: int, payload_bytes: int
) -> None:
    if min(shape) < 1 or math.prod(shape) > MAX_CARRY_ELEMENTS:
        raise FrameError(f"expected a carry of 1..{MAX_CARRY_ELEMENTS} elements, got shape {shape}")
    if classes > MAX_CLASSES or (classes == 0) != (partition == 0):
        raise FrameError(
            f"expected 1..{MAX_CLASSES} logits, or none at partition 0, "
            f"got {classes} at partition {partition}"
        )
    frame_bytes = HEADER_BYTES + 4 * classes + payload_bytes
    if frame_bytes > MAX_FRAME_BYTES:
        raise FrameError(f"expected at most {MAX_FRAME_BYTES} bytes, got {frame_bytes}")


def _check_checksum(data: bytes) -> None:
    body = memoryview(data)[HEADER_BYTES:]
    found = zlib.crc32(body, zlib.crc32(memoryview(data)[: _FIELDS.size]))
    (declared,) = _CHECKSUM.unpack_from(data, _FIELDS.size)
    if found != declared:
        raise FrameError(
            f"expected checksum {declared:08x}, found {found:08x}: damaged on the way; send again"
        )


def _check_finite(logits: NDArray[np.float32]) -> None:
    if not np.isfinite(logits).all():
        raise FrameError("expected finite logits, got NaN or infinity")
