"""Picture files to pixels, and whatever their decoders raise to one kind of error.

JPEG files are decoded by libjpeg-turbo (simplejpeg), which says when one is
damaged; Pillow decodes the other formats, and the JPEG files that simplejpeg does
not convert.
"""

import io
from typing import Literal

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

Damaged = Literal["refuse", "accept"]

# What torchvision's and Keras's folders of pictures may hold between them.
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif"),
    *(".webp", ".tif", ".tiff", ".ppm", ".pgm"),
)
# Pillow opens more, and some by programs that it starts (EPS).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Modes that lose nothing but alpha on the way to 8-bit grey or RGB.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
LARGEST_SIDE = 2**15 - 1  # pixels: the most that OpenCV resizes
JPEG_START = b"\xff\xd8"


class PictureError(ValueError):
    """Bytes that give no pixels, or damaged ones; the message is one line.

    Attributes:
      acceptable: something could be decoded of it, which ``damaged='accept'`` takes.
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
    """Pixels of a picture file, grey or RGB as ``channels`` asks.

    Grey, palette, CMYK and 1-bit pictures become RGB (or grey), alpha is
    dropped without blending, of several pictures in a file the first is taken,
    and the EXIF orientation is ignored, as the usual ImageNet pipelines do.

    Args:
      encoded: the file's bytes.
      channels: 1 or 3.
      damaged: whether a JPEG that libjpeg complains about, or a PNG with a wrong
        checksum, is refused, or taken for what could be decoded of it. Truncated
        files are always refused.
      least: height and width that are enough: a JPEG is decoded at 1/8 to 4/8 of
        its size where that has them. None for the whole picture.

    Returns:
      uint8 (height, width, channels).

    Raises:
      PictureError: no picture, a damaged or truncated one, one of more than 8
        bits a channel, or of too many pixels.
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
      They; None for another format, and for a JPEG that simplejpeg does not convert.

    Raises:
      PictureError: a JPEG whose header is damaged.
    """
    if not encoded.startswith(JPEG_START):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(encoded)
    except Exception as error:
        # unusual sampling factors are Pillow's business, and so is no JPEG at all
        if damaged == "refuse" and "Corrupt" in str(error):
            raise PictureError(_line(error)) from error
        return None
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow's own
    if 0 < limit < height * width:
        raise PictureError(f"{height}x{width} pixels, more than the limit of {limit}")
    # simplejpeg converts no CMYK that Adobe programs write inverted
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
            raise PictureError(f"{picture.format} of mode {picture.mode}, not 8-bit")
        form, own_mode = str(picture.format), picture.mode
        if "transparency" in picture.info:
            picture = picture.convert("RGBA")
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    if damaged == "refuse":
        _check(encoded, form, own_mode)
    return pixels[..., None] if channels == 1 else pixels


def _check(encoded: bytes, form: str, mode: str) -> None:
    """Refuse damage that Pillow decodes without a word."""
    try:
        if form == "PNG":
            with Image.open(io.BytesIO(encoded), formats=("PNG",)) as other:
                other.verify()  # checksums of all chunks
        elif form == "JPEG" and mode == "CMYK":
            simplejpeg.decode_jpeg(encoded, "CMYK")
    except Exception as error:
        raise PictureError(_line(error), acceptable=True) from error


def _line(error: Exception) -> str:
    """An error as one line, with its kind where the text alone does not tell."""
    text = " ".join(str(error).split())
    plain = isinstance(error, OSError | ValueError | SyntaxError)
    return text if plain and text else f"{type(error).__name__} {text}".strip()


def central_square(
    pixels: UInt8[np.ndarray, "height width channels"], size: int
) -> UInt8[np.ndarray, "{size} {size} channels"]:
    """The largest square in the middle, resized (bilinear, antialiased)."""
    height, width, channels = pixels.shape
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).resize(
        (size, size),
        Image.Resampling.BILINEAR,
        box=(left, top, left + side, top + side),
    )
    return np.asarray(image).reshape(size, size, channels)
