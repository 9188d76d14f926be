"""Decodes picture files to pixels, with one error type for all decoders.

libjpeg-turbo (simplejpeg) decodes JPEG files and reports damage. Pillow decodes all
other formats, and the JPEG files that simplejpeg does not convert.
"""

import io
from typing import Literal

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

Damaged = Literal["refuse", "accept"]

# The suffixes that torchvision and Keras accept in folders of pictures, combined.
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif"),
    *(".webp", ".tif", ".tiff", ".ppm", ".pgm"),
)
# Pillow supports more formats, some by starting other programs (EPS).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Modes that lose nothing but alpha when converted to 8-bit grey or RGB.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
LARGEST_SIDE = 2**15 - 1  # pixels: the limit of OpenCV's resize
JPEG_START = b"\xff\xd8"


class PictureError(ValueError):
    """A file that cannot be decoded, or is damaged; the message is one line.

    Attributes:
      acceptable: part of the picture is decodable, and ``damaged='accept'`` uses it.
    """

    def __init__(self, message: str, acceptable: bool = False):
        super().__init__(message)
        self.acceptable = acceptable


def decode(
    encoded: bytes,
    channels: int,
    damaged: Damaged = "refuse",
    least: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "height width channels"]:
    """Decode a picture file, to grey or RGB according to ``channels``.

    Grey, palette, CMYK and 1-bit pictures become RGB (or grey). Alpha is dropped
    without blending. Only the first of several pictures in a file is used. The EXIF
    orientation is ignored, as in the usual ImageNet pipelines.

    Args:
      encoded: the file's bytes.
      channels: 1 or 3.
      damaged: 'refuse' a JPEG for which libjpeg reports an error and a PNG with a
        wrong checksum, or 'accept' their decodable part. Truncated files are always
        refused.
      least: sufficient height and width: a JPEG is decoded at 1/8 to 4/8 of its
        size if the result is at least this large. None for the whole picture.

    Returns:
      uint8 (height, width, channels).

    Raises:
      PictureError: not a picture, a damaged or truncated one, or one with more than
        8 bits per channel or too many pixels.
    """
    try:
        if jpeg_sides(encoded, damaged) is None:
            return _by_pillow(encoded, channels, damaged)
        height, width = least or (0, 0)
        try:
            return simplejpeg.decode_jpeg(
                encoded,
                "GRAY" if channels == 1 else "RGB",
                min_height=height,
                min_width=width,
                min_factor=2 if least else 1,
            )
        except ValueError as error:
            pixels = _by_pillow(encoded, channels, "accept")
            if damaged == "accept":
                return pixels
            raise PictureError(_line(error), acceptable=True) from error
    except PictureError:
        raise
    except Exception as error:  # SyntaxError, struct.error, zlib.error, KeyError ...
        raise PictureError(_line(error)) from error


def jpeg_sides(encoded: bytes, damaged: Damaged = "refuse") -> tuple[int, int] | None:
    """Height and width of a JPEG, without decoding it.

    Args:
      encoded: the file's bytes.
      damaged: as in `decode`.

    Returns:
      Both; None for another format, and for a JPEG that simplejpeg does not convert.

    Raises:
      PictureError: a JPEG whose header is damaged.
    """
    if not encoded.startswith(JPEG_START):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(encoded)
    except Exception as error:
        # left to Pillow: unusual sampling factors, and files that are no JPEG
        if damaged == "refuse" and "Corrupt" in str(error):
            raise PictureError(_line(error)) from error
        return None
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow's own
    if 0 < limit < height * width:
        raise PictureError(f"{height}x{width} pixels exceed the limit of {limit}")
    # simplejpeg does not convert the inverted CMYK that Adobe programs write
    return (height, width) if space in ("YCbCr", "Gray", "RGB") else None


def _by_pillow(encoded: bytes, channels: int, damaged: Damaged) -> np.ndarray:
    try:
        opened = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError as error:  # its text names an object in memory
        raise PictureError(
            f"cannot identify the format of {len(encoded)} bytes"
        ) from error
    with opened as file:
        picture: Image.Image = file
        if picture.mode not in MODES:
            raise PictureError(f"{picture.format} of mode {picture.mode} is not 8-bit")
        form, own_mode = str(picture.format), picture.mode
        if "transparency" in picture.info:
            picture = picture.convert("RGBA")
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    if damaged == "refuse":
        _check(encoded, form, own_mode)
    return pixels[..., None] if channels == 1 else pixels


def _check(encoded: bytes, form: str, mode: str) -> None:
    """Reject damage that Pillow decodes silently."""
    try:
        if form == "PNG":
            with Image.open(io.BytesIO(encoded), formats=("PNG",)) as other:
                other.verify()  # checksums of all chunks
        elif form == "JPEG" and mode == "CMYK":
            simplejpeg.decode_jpeg(encoded, "CMYK")
    except Exception as error:
        raise PictureError(_line(error), acceptable=True) from error


def _line(error: Exception) -> str:
    """An error as one line, with its type if the text alone is unclear."""
    text = " ".join(str(error).split())
    plain = isinstance(error, OSError | ValueError | SyntaxError)
    return text if plain and text else f"{type(error).__name__} {text}".strip()


def central_square(
    pixels: UInt8[np.ndarray, "height width channels"], size: int
) -> UInt8[np.ndarray, "{size} {size} channels"]:
    """The largest central square, resized (bilinear, antialiased)."""
    height, width, channels = pixels.shape
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).resize(
        (size, size),
        Image.Resampling.BILINEAR,
        box=(left, top, left + side, top + side),
    )
    return np.asarray(image).reshape(size, size, channels)
