"""Regions of encoded pictures: decoded as far as needed, and resized.

JPEG files are decoded by libjpeg-turbo (simplejpeg), which refuses damaged ones,
and at 1/2, 1/4 or 1/8 of their size where the region is shrunk that much anyway.
OpenCV resizes in training (bilinear, as the Caffe code of He et al. did),
Pillow in evaluation (bilinear with antialiasing, as torchvision does).
"""

import math
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from cnn_jax.data import pictures

# Workers and their threads each decode one picture at a time.
cv2.setNumThreads(1)

Number = int | float
Box = tuple[Number, Number, Number, Number]
Pixels = UInt8[np.ndarray, "height width channels"]
JPEG_START = b"\xff\xd8"


class Picture:
    """An encoded picture, decoded as far as a crop needs.

    Args:
      encoded: the file's bytes.
      channels: 1 (grey) or 3 (RGB).
      damaged: whether a JPEG that libjpeg complains about is refused, or taken
        for what could be decoded of it. Truncated files are always refused.

    Attributes:
      height: rows of the whole picture.
      width: columns of the whole picture.

    Raises:
      OSError: no picture, or (on use) a truncated one.
      ValueError: a picture of more than 8 bits a channel, or a damaged JPEG.
    """

    def __init__(
        self,
        encoded: bytes,
        channels: int,
        damaged: Literal["refuse", "accept"] = "refuse",
    ):
        self._encoded = encoded
        self._channels = channels
        self._strict = damaged == "refuse"
        self._pixels: np.ndarray | None = None
        self._jpeg = encoded.startswith(JPEG_START)
        if self._jpeg:
            try:
                self.height, self.width, space, _ = simplejpeg.decode_jpeg_header(
                    encoded
                )
                # simplejpeg converts no CMYK that Adobe programs write inverted
                self._jpeg = space in ("YCbCr", "Gray", "RGB")
            except ValueError:
                self._jpeg = False  # an unusual JPEG is Pillow's business
        if not self._jpeg:
            self._pixels = pictures.decode(encoded, channels)
            self.height, self.width = self._pixels.shape[:2]

    def cut(self, box: Box, size: int, mirrored: bool) -> Pixels:
        """A region, resized bilinearly by OpenCV; for training.

        Args:
          box: top, left, height and width in pixels of the whole picture; the
            nearest whole pixels are taken.
          size: side of the result.
          mirrored: flip left to right.

        Returns:
          uint8 (size, size, channels).
        """
        top, left, height, width = box
        shrink = min(height, width) / size
        pixels = self._decode(size / min(height, width) if shrink >= 2 else 1.0)
        down, across = pixels.shape[0] / self.height, pixels.shape[1] / self.width
        first_row = min(round(top * down), pixels.shape[0] - 1)
        first_column = min(round(left * across), pixels.shape[1] - 1)
        region = pixels[
            first_row : first_row + max(round(height * down), 1),
            first_column : first_column + max(round(width * across), 1),
        ]
        image = cv2.resize(region, (size, size), interpolation=cv2.INTER_LINEAR)
        image = image.reshape(size, size, -1)
        return image[:, ::-1] if mirrored else image

    def view(self, box: Box, size: tuple[int, int]) -> Pixels:
        """A region, resized bilinearly with antialiasing by Pillow; to evaluate.

        Args:
          box: top, left, height and width in pixels of the whole picture, not
            rounded.
          size: height and width of the result.

        Returns:
          uint8 (height, width, channels).
        """
        pixels = self._decode(1.0)
        top, left, height, width = box
        picture = Image.fromarray(pixels[..., 0] if self._channels == 1 else pixels)
        image = picture.resize(
            (size[1], size[0]),
            Image.Resampling.BILINEAR,
            box=(left, top, min(left + width, self.width), top + height),
        )
        return np.asarray(image).reshape(*size, self._channels)

    def _decode(self, scale: float) -> np.ndarray:
        """The whole picture, at ``scale`` of its size or somewhat more."""
        if self._pixels is not None:
            return self._pixels
        try:
            pixels = simplejpeg.decode_jpeg(
                self._encoded,
                "GRAY" if self._channels == 1 else "RGB",
                min_height=math.ceil(self.height * scale),
                min_width=math.ceil(self.width * scale),
                min_factor=1 if scale == 1 else 2,
            )
        except ValueError as error:
            if self._strict:
                raise ValueError(
                    f"{error} (dataset.stream.damaged='accept' takes what can be "
                    "decoded of it)"
                ) from error
            return pictures.decode(self._encoded, self._channels)
        if scale == 1:
            self._pixels = pixels
        return pixels
