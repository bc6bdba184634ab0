"""Image files become pixels of the network's size, or an error that says why not."""

import contextlib
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xpi_ray.compression.image import MAX_IMAGE_BYTES, decode_image, encode_image
from xpi_ray.errors import RequestError, TooLargeError, UnsupportedMediaError

SIZE = (24, 16)  # height, width


def picture(height=24, width=16):
    """Smooth colours that differ along both axes, uint8 (height, width, 3)."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack(
        [rows * 255 // height, columns * 255 // width, np.full_like(rows, 90)], axis=-1
    ).astype(np.uint8)


def encode(image, file_format="PNG", **options):
    """The bytes of an image file."""
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_of_declared_size(width, height):
    """A PNG whose header declares more than its data holds."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_keeps_pixels_of_the_right_size(file_format):
    """A lossless file of the network's size comes through bit by bit, channels first."""
    expected = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    data = encode(Image.fromarray(expected), file_format, lossless=True)
    pixels = decode_image(data, SIZE)
    np.testing.assert_array_equal(pixels, expected.transpose(2, 0, 1))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def test_keeps_jpeg_pixels_of_the_right_size():
    """A JPEG of the network's size is what Pillow decodes it to."""
    data = encode(Image.fromarray(picture()), "JPEG")
    expected = np.asarray(Image.open(BytesIO(data))).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(data, SIZE), expected)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("height", "width"), [(240, 160), (300, 160), (240, 400), (12, 8)])
def test_resizes_about_the_centre(file_format, height, width):
    """The centre of the picture, in the network's aspect ratio, fills the result."""
    scale = min(height / 24, width / 16)
    top, left = (height - 24 * scale) / 2, (width - 16 * scale) / 2
    image = Image.fromarray(picture(height, width))
    expected = image.resize((16, 24), box=(left, top, width - left, height - top))
    pixels = decode_image(encode(image, file_format, quality=95), SIZE).astype(int)
    error = np.abs(pixels - np.asarray(expected).transpose(2, 0, 1))
    assert error.mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_the_picture_upright(orientation):
    """Each of the eight EXIF orientations shows the same picture."""
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }[orientation](picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(decode_image(data, SIZE), picture().transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_takes_every_colour_mode(mode):
    """White is white in any mode."""
    white = Image.new("RGB", (16, 24), "white").convert(mode)
    data = encode(white, "JPEG" if mode == "CMYK" else "PNG")
    assert decode_image(data, SIZE).min() >= 254


def test_keeps_the_high_byte_of_16_bit_grey():
    """Deep grey keeps its brightness instead of being clipped."""
    deep = np.linspace(0, 65535, 24 * 16).astype(np.uint16).reshape(SIZE)
    pixels = decode_image(encode(Image.fromarray(deep)), SIZE)
    np.testing.assert_array_equal(pixels, np.broadcast_to(deep >> 8, (3, *SIZE)))


@pytest.mark.parametrize("size", [(16, 24), (160, 240)])
def test_lays_transparency_on_white(size):
    """What is see-through shows white, whatever colour hides there."""
    image = Image.new("RGBA", size, (200, 0, 0, 0))
    assert decode_image(encode(image), SIZE).min() == 255


def test_takes_the_first_frame_of_an_animation():
    """An animated WebP is its first picture."""
    frames = [Image.new("RGB", (16, 24), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    pixels = decode_image(data, SIZE)
    assert pixels[0].min() > 250
    assert pixels[2].max() < 5


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", RequestError, "empty"),
        (b"not an image", RequestError, "whole PNG"),
        (bytes(100), RequestError, "whole PNG"),
        (encode(Image.fromarray(picture()))[:-40], RequestError, "damaged"),
        (encode(Image.fromarray(picture()), "JPEG")[:-40], RequestError, "damaged"),
        (encode(Image.fromarray(picture()))[:20], RequestError, "whole PNG"),
        (png_of_declared_size(16, 24), RequestError, "damaged"),
        (encode(Image.fromarray(picture()), "GIF"), UnsupportedMediaError, "got GIF"),
        (encode(Image.fromarray(picture()), "BMP"), UnsupportedMediaError, "got BMP"),
        (encode(Image.fromarray(picture()), "TIFF"), UnsupportedMediaError, "got TIFF"),
        (encode(Image.fromarray(picture()), "PDF"), UnsupportedMediaError, "got PDF"),
        (b"\0\0\0\x1cftypheic" + bytes(20), UnsupportedMediaError, "HEIF"),
        (png_of_declared_size(50_000, 50_000), TooLargeError, "pixels"),
        (png_of_declared_size(10_000, 10_000), TooLargeError, "pixels"),
        (png_of_declared_size(8_000, 7_000), TooLargeError, "8000x7000"),
        (b"\x89PNG" + bytes(MAX_IMAGE_BYTES), TooLargeError, "bytes"),
    ],
    ids=[
        "empty", "text", "zeros", "cut png", "cut jpeg", "png header only", "png without data",
        "gif", "bmp", "tiff", "pdf", "heic", "bomb", "pillow's warning", "our limit", "too long",
    ],
)  # fmt: skip
def test_refuses(data, error, message):
    """Each fault has its own status and says what was wrong."""
    with pytest.raises(RequestError, match=message) as caught:
        decode_image(data, SIZE)
    assert type(caught.value) is error


def test_refuses_a_bomb_without_pillows_warning():
    """The limit holds where warnings are not errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TooLargeError, match="10000x10000"):
            decode_image(png_of_declared_size(10_000, 10_000), SIZE)


@settings(max_examples=200)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_damage_is_never_more_than_a_refusal(file_format, data):
    """A file with bytes overwritten decodes to the right shape or raises a RequestError."""
    damaged = bytearray(encode(Image.fromarray(picture()), file_format))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(8, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's notes on odd metadata
        with contextlib.suppress(RequestError):
            assert decode_image(bytes(damaged), SIZE).shape == (3, *SIZE)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 10, 6), (3, 1, 9)])
def test_what_is_encoded_for_the_link_comes_back_exactly(shape):
    """Noise, without loss, whatever the size."""
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    assert (decode_image(encode_image(pixels), shape[1:]) == pixels).all()


def test_a_flat_image_takes_few_bytes():
    """Where there is nothing to tell, next to nothing is sent."""
    assert len(encode_image(np.zeros((3, 224, 224), np.uint8))) < 300
