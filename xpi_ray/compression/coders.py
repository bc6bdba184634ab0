"""Lossless coding of the symbols that a quantiser makes of one carry.

    symbols (C, h, w) ─► encode ─► frame's payload ─► decode ─► the same symbols

Here are the coders that know nothing of a carry: they pack the symbols to bytes and compress these.
Those with a learned model are in ``range_coder``.
"""

import io
import zlib
from abc import ABC, abstractmethod
from typing import Any, Protocol

import lz4.block
import ncompress
import numpy as np
from numpy.typing import NDArray

from xpi_ray.errors import CodecError

Shape = tuple[int, int, int]
Symbols = NDArray[np.unsignedinteger[Any]]  # uint8 or uint16

LARGEST_ALPHABET = 2**16
LZ4_EXPANSION = 255  # a byte of a block is at most so much of output (block format, match lengths)
DEFLATE_EXPANSION = 1032  # 258 bytes from 2 bits (RFC 1951)
LZW_HEADER = b"\x1f\x9d\x90"  # of `compress`: at most 16 bits to a code, table is cleared when full
LZW_LEAST_BITS = 9  # to a code


class Coder(Protocol):
    """Turns symbols into bytes and back, without loss."""

    @property
    def name(self) -> str:
        """Short, for reports."""
        ...

    def encode(self, symbols: Symbols, alphabet: int) -> bytes:
        """Return the bytes of symbols (C, h, w), each below ``alphabet``.

        Raises:
            CodecError: The coder has no code for this alphabet or shape.
        """
        ...

    def decode(self, data: bytes, shape: Shape, alphabet: int) -> Symbols:
        """Return symbols (C, h, w), each below ``alphabet``, whatever the data.

        What is declared is checked before anything of its size is made.

        Raises:
            CodecError: ``data`` cannot be what ``encode`` makes of such symbols.
        """
        ...


def bits_of(alphabet: int) -> int:
    """Whole bits that hold one of ``alphabet`` symbols, 1..16.

    Raises:
        CodecError: The alphabet has fewer than 2 symbols, or more than 65,536.
    """
    if not 2 <= alphabet <= LARGEST_ALPHABET:
        raise CodecError(f"expected an alphabet of 2..{LARGEST_ALPHABET} symbols, got {alphabet}")
    return (alphabet - 1).bit_length()


def symbol_type(alphabet: int) -> np.dtype[Any]:
    """Of arrays of symbols below ``alphabet``: uint8 where that holds them, else uint16."""
    return np.dtype(np.uint8 if alphabet <= 2**8 else np.uint16)


def packed_bytes(count: int, bits: int) -> int:
    """Size of ``count`` packed symbols."""
    return (count * bits + 7) // 8 if bits <= 8 else packed_bytes(count, bits - 8) + count


def pack(symbols: Symbols, bits: int, *, planes: bool = False) -> bytes:
    """Lay symbols below 2^bits out back to back, the high bit first; zeros fill the last byte.

    Args:
        symbols: Of any shape, row-major.
        bits: 1..16. Of more than 8, the high ones of all symbols come first and then a byte each.
        planes: Lay out the highest bit of all symbols, then the next one of all, and so on.
    """
    flat = symbols.reshape(-1)
    if bits > 8:
        high = (flat >> 8).astype(np.uint8)
        return pack(high, bits - 8, planes=planes) + pack(flat.astype(np.uint8), 8, planes=planes)
    if bits == 8 and not planes:
        return flat.astype(np.uint8).tobytes()
    each = np.unpackbits(flat.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]  # (count, bits)
    return np.packbits(each.T if planes else each).tobytes()


def unpack(data: bytes, bits: int, count: int, *, planes: bool = False) -> Symbols:
    """Return the ``count`` symbols, flat, that ``pack`` laid out in so many bytes."""
    if bits > 8:
        cut = packed_bytes(count, bits - 8)
        high = unpack(data[:cut], bits - 8, count, planes=planes).astype(np.uint16)
        wide: Symbols = high << np.uint16(8) | unpack(data[cut:], 8, count, planes=planes)
        return wide
    values = np.frombuffer(data, np.uint8)
    if bits == 8 and not planes:
        return values
    flat = np.unpackbits(values, count=count * bits)
    each = flat.reshape(bits, count).T if planes else flat.reshape(count, bits)
    symbols: Symbols = np.packbits(each, axis=1)[:, 0] >> np.uint8(8 - bits)
    return symbols


class ByteCoder(ABC):
    """Packs symbols to bytes, which it compresses."""

    name: str
    planes = False

    def encode(self, symbols: Symbols, alphabet: int) -> bytes:
        """Return the compressed bytes; CodecError for an alphabet that is none."""
        return self.compress(pack(symbols, self.width(alphabet), planes=self.planes))

    def decode(self, data: bytes, shape: Shape, alphabet: int) -> Symbols:
        """Return the symbols; CodecError when ``data`` do not hold so many below ``alphabet``."""
        width, count = self.width(alphabet), count_of(shape)
        size_bytes = packed_bytes(count, width)
        if size_bytes > self.most_bytes(data):
            raise CodecError(
                f"expected {size_bytes} bytes for shape {shape}, more than {len(data)} bytes of "
                f"{self.name} can hold"
            )
        packed = self.expand(data, size_bytes)
        if len(packed) != size_bytes:
            raise CodecError(f"expected {size_bytes} bytes in {self.name}, got {len(packed)}")
        symbols = unpack(packed, width, count, planes=self.planes)
        if alphabet < 2**width and symbols.max() >= alphabet:
            raise CodecError(f"expected symbols below {alphabet}, got {symbols.max()}")
        return symbols.reshape(shape).astype(symbol_type(alphabet), copy=False)

    def width(self, alphabet: int) -> int:
        """Bits that a packed symbol takes."""
        return bits_of(alphabet)

    @abstractmethod
    def most_bytes(self, data: bytes) -> int:
        """No true ``data`` expand to more."""

    @abstractmethod
    def compress(self, data: bytes) -> bytes:
        """Make bytes few."""

    @abstractmethod
    def expand(self, data: bytes, size_bytes: int) -> bytes:
        """Undo it, and never make many more than ``size_bytes``; CodecError for other data."""


class Lz4Coder(ByteCoder):
    """One LZ4 block without its size, which the reader knows from the frame's shape.

    Data that do not compress grow by at most 1/255 and 16 bytes.

    Args:
        shuffled: Bit planes of the symbols are coded, as in SPINN (MobiCom'20), section 4.
    """

    def __init__(self, *, shuffled: bool = False) -> None:
        self.planes = shuffled
        self.name = "lz4-shuffled" if shuffled else "lz4"

    def most_bytes(self, data: bytes) -> int:
        """255 to a byte."""
        return LZ4_EXPANSION * len(data)

    def compress(self, data: bytes) -> bytes:
        """Make a block."""
        compressed: bytes = lz4.block.compress(data, store_size=False)
        return compressed

    def expand(self, data: bytes, size_bytes: int) -> bytes:
        """Read a block; CodecError if it is none."""
        try:
            expanded: bytes = lz4.block.decompress(data, uncompressed_size=size_bytes)
        except (lz4.block.LZ4BlockError, OverflowError) as err:
            raise CodecError(f"expected an LZ4 block of {size_bytes} bytes: {err}") from err
        return expanded


class _AlignedCoder(ByteCoder):
    """One to which a byte is a letter: no symbol of up to 8 bits lies in two of them."""

    def width(self, alphabet: int) -> int:
        """1, 2, 4, 8 or 16 bits."""
        bits = bits_of(alphabet)
        return bits if 8 % bits == 0 else 8 * -(-bits // 8)


class LzwCoder(_AlignedCoder):
    """Codes of 9 to 16 bits by the algorithm of Welch (1984), as the Unix tool ``compress`` does.

    AgileNN (MobiCom'22) and Xpi compress by it. Its header is left out, as it is always the same.
    Here for comparison: no plan sends it.
    """

    name = "lzw"

    def most_bytes(self, data: bytes) -> int:
        """The i-th code stands for at most i bytes."""
        codes = 8 * len(data) // LZW_LEAST_BITS
        return codes * (codes + 1) // 2

    def compress(self, data: bytes) -> bytes:
        """Compress, and cut the header off."""
        compressed: bytes = ncompress.compress(data)
        return compressed.removeprefix(LZW_HEADER)

    def expand(self, data: bytes, size_bytes: int) -> bytes:
        """Expand piece by piece; CodecError for codes that cannot be, or too many."""
        pipe = _Pipe(LZW_HEADER + data, size_bytes)
        try:
            ncompress.decompress(pipe, pipe)
        except ValueError as err:
            raise CodecError(f"expected {size_bytes} bytes in LZW: {err}") from err
        return bytes(pipe.output)


class _Pipe:
    """Input that ends once there is too much output.

    ``ncompress`` writes the last bytes from a destructor, where an exception ends the process. So
    nothing is raised here: what is too much is thrown away.
    """

    def __init__(self, source: bytes, limit_bytes: int) -> None:
        self.output = bytearray()
        self._source, self._limit_bytes = io.BytesIO(source), limit_bytes

    def read(self, size: int) -> bytes:
        """Give the next piece, of ``size`` bytes at most."""
        return b"" if len(self.output) > self._limit_bytes else self._source.read(size)

    def write(self, piece: bytes) -> int:
        """Keep up to one byte more than the limit, by which the reader sees that it was passed."""
        self.output += piece[: self._limit_bytes + 1 - len(self.output)]
        return len(piece)


class HuffmanCoder(_AlignedCoder):
    """Huffman's code of the carry's own bytes: raw deflate (RFC 1951) that seeks no matches."""

    name = "huffman"

    def most_bytes(self, data: bytes) -> int:
        """What deflate with matches would allow, since those are read as well."""
        return DEFLATE_EXPANSION * len(data)

    def compress(self, data: bytes) -> bytes:
        """Write codes and code lengths."""
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
        return deflate.compress(data) + deflate.flush()

    def expand(self, data: bytes, size_bytes: int) -> bytes:
        """Read at most one byte more than expected; CodecError if there is more, or less data."""
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            expanded = inflate.decompress(data, size_bytes + 1)
        except zlib.error as err:
            raise CodecError(f"expected {size_bytes} bytes in Huffman's code: {err}") from err
        if not inflate.eof or inflate.unused_data:
            raise CodecError(f"expected exactly {size_bytes} bytes in Huffman's code")
        return expanded


def count_of(shape: Shape) -> int:
    """Elements of a declared shape.

    Raises:
        CodecError: A size is below 1.
    """
    if min(shape) < 1:
        raise CodecError(f"expected a shape of sizes above 0, got {shape}")
    channels, height, width = shape
    return channels * height * width
