"""An image file as a stranger sends it, to pixels of the network's size; and back to a small one.

    bytes ─► header: format, size ─► decode ─► upright ─► resize and crop ─► RGB ─► uint8 (3,H,W)

The shorter side is scaled to fit and the longer one is cropped about its centre. Transparent
pixels lie on white. A file of exactly the network's size keeps every pixel as it is, so that what
``encode_image`` makes for the link at partition 0 comes back without loss.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from xpi_ray.errors import RequestError, TooLargeError, UnsupportedMediaError

MAX_IMAGE_BYTES = 10 * 2**20
MAX_IMAGE_PIXELS = 50 * 2**20  # what a 50-megapixel camera makes, and below Pillow's own limit
FORMATS = ("PNG", "JPEG", "WEBP")
FILTER = Image.Resampling.LANCZOS
EFFORT = 0  # of 6; on CIFAR images 1 saves 4 % and takes twice as long, others save no more

_OTHER_FORMATS = {  # first bytes of what people send by mistake
    b"GIF8": "GIF",
    b"%PDF": "PDF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"8BPS": "PSD",
    b"<svg": "SVG",
    b"\0\0\0\x0cjP": "JPEG 2000",
}


def encode_image(pixels: NDArray[np.uint8]) -> bytes:
    """Return a lossless WebP file of pixels (3, H, W)."""
    buffer = BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.save(buffer, "WEBP", lossless=True, quality=0, method=EFFORT)
    return buffer.getvalue()


def decode_image(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a PNG, JPEG or WebP file; of an animation, its first frame.

    The camera's orientation (EXIF) is applied, any colour mode becomes RGB, and the filter is
    Lanczos.

    Args:
        data: The file, at most ``MAX_IMAGE_BYTES``.
        size: Height and width of the network's images.

    Returns:
        Pixels 0..255, a new array (3, H, W).

    Raises:
        RequestError: The file is empty, damaged, or no image.
        TooLargeError: It has too many bytes, or its header declares too many pixels.
        UnsupportedMediaError: It is an image of another format.
    """
    if not data:
        raise RequestError("expected an image, got an empty body; send a PNG, JPEG or WebP file")
    if len(data) > MAX_IMAGE_BYTES:
        raise TooLargeError(
            f"the image must be at most {MAX_IMAGE_BYTES} bytes, got {len(data)}; send less"
        )
    height, width = size
    with _open(data) as image:
        try:
            pixels = np.array(_fit(image, width, height))
        # Whatever a decoder raises on a stranger's bytes is the fault of the bytes.
        except Exception as err:
            raise RequestError(f"the image is damaged or truncated: {str(err)[:100]}") from err
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _open(data: bytes) -> Image.Image:
    """Read the header only, and refuse what must not be decoded."""
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise TooLargeError(_too_many_pixels(str(err))) from None
    except Exception as err:  # not an image, or one with a damaged header
        raise _not_one_of_ours(data) from err
    if image.width * image.height > MAX_IMAGE_PIXELS:
        raise TooLargeError(_too_many_pixels(f"{image.width}x{image.height}"))
    return image


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    side = 2 * max(width, height)
    image.draft(None, (side, side))  # lets a JPEG decode at a fraction of its size, never below
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image = ImageOps.fit(image, (width, height), FILTER)
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image)
    return canvas


def _too_many_pixels(came: str) -> str:
    return f"the image must have at most {MAX_IMAGE_PIXELS} pixels, got {came}; send a smaller one"


def _not_one_of_ours(data: bytes) -> RequestError:
    for magic, name in _OTHER_FORMATS.items():
        if data.startswith(magic):
            return UnsupportedMediaError(f"expected a PNG, JPEG or WebP image, got {name}")
    if data[4:8] == b"ftyp":
        return UnsupportedMediaError("expected a PNG, JPEG or WebP image, got HEIF, AVIF or video")
    return RequestError(
        f"expected a whole PNG, JPEG or WebP image, got {len(data)} bytes that do not begin as one"
    )
