"""PNG and JPEG files decoded by Pillow."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

# Modes that lose nothing but alpha on the way to 8-bit grey or RGB.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def decode(encoded: bytes, channels: int) -> np.ndarray:
    """Pixels of a picture file, grey or RGB as ``channels`` asks.

    Grey, palette, CMYK and 1-bit pictures become RGB (or grey), alpha is
    dropped without blending, and the EXIF orientation is ignored, as the usual
    ImageNet pipelines do.

    Args:
      encoded: the file's bytes.
      channels: 1 or 3.

    Returns:
      uint8 (height, width, channels).

    Raises:
      OSError: no picture, or a truncated one.
      ValueError: one of more than 8 bits a channel, or of too many pixels.
    """
    try:
        opened = Image.open(io.BytesIO(encoded))
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except UnidentifiedImageError as error:  # its text names an object in memory
        raise OSError(f"cannot identify the format of {len(encoded)} bytes") from error
    with opened as picture:
        if picture.mode not in MODES:
            raise ValueError(f"{picture.format} of mode {picture.mode}, not 8-bit")
        if "transparency" in picture.info:
            picture = picture.convert("RGBA")
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    return pixels[..., None] if channels == 1 else pixels


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
