"""Lossless coding of bytes.

symbols ─► encode ─► frame's payload ─► decode ─► the same symbols
"""

import lz4.block

from xpi_ray.errors import CodecError

# A byte of an LZ4 block stands for at most 255 of output (LZ4 block format, match lengths).
LZ4_EXPANSION = 255


class Lz4Coder:
    """One LZ4 block without its size, which the reader knows from the frame's shape.

    Data that do not compress grow by at most 1/255 and 16 bytes.
    """

    name = "lz4"

    def encode(self, data: bytes) -> bytes:
        """Compress ``data``."""
        encoded: bytes = lz4.block.compress(data, store_size=False)
        return encoded

    def decode(self, data: bytes, size_bytes: int) -> bytes:
        """Return the ``size_bytes`` bytes that were encoded; never allocates more than these.

        Raises:
            CodecError: ``data`` is no LZ4 block, or not one of this size.
        """
        if size_bytes > LZ4_EXPANSION * len(data):
            raise CodecError(
                f"expected {size_bytes} bytes, more than {len(data)} bytes of LZ4 can hold"
            )
        try:
            decoded: bytes = lz4.block.decompress(data, uncompressed_size=size_bytes)
        except (lz4.block.LZ4BlockError, OverflowError) as err:
            raise CodecError(f"expected an LZ4 block of {size_bytes} bytes: {err}") from err
        if len(decoded) != size_bytes:
            raise CodecError(f"expected an LZ4 block of {size_bytes} bytes, got {len(decoded)}")
        return decoded
