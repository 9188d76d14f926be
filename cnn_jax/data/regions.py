"""Regions of encoded pictures, decoded at the resolution needed and resized.

JPEG files are decoded at 1/8 to 4/8 of their size if the region is shrunk by at least
that factor (see `cnn_jax.data.pictures`). OpenCV resizes in training (bilinear, as in
the Caffe code of He et al.), Pillow in evaluation (bilinear with antialiasing, as in
torchvision).
"""

import math

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cnn_jax.data import pictures

# Every worker and thread decodes one picture at a time.
cv2.setNumThreads(1)

Number = int | float
Box = tuple[Number, Number, Number, Number]
Pixels = UInt8[np.ndarray, "height width channels"]


class Picture:
    """An encoded picture, decoded at the resolution that a crop needs.

    Args:
      encoded: the file's bytes.
      channels: 1 (grey) or 3 (RGB).
      damaged: as in `pictures.decode`.

    Attributes:
      height: rows of the whole picture.
      width: columns of the whole picture.

    Raises:
      PictureError: as `pictures.decode`, partly only on use.
    """

    def __init__(
        self,
        encoded: bytes,
        channels: int,
        damaged: pictures.Damaged = "refuse",
    ):
        self._encoded = encoded
        self._channels = channels
        self._damaged: pictures.Damaged = damaged
        self._pixels: np.ndarray | None = None
        sides = pictures.jpeg_sides(encoded, damaged)
        if sides is None:
            self._pixels = pictures.decode(encoded, channels, damaged)
            sides = self._pixels.shape[:2]
        self.height, self.width = sides

    def cut(self, box: Box, size: int, mirrored: bool) -> Pixels:
        """A region, resized bilinearly by OpenCV, for training.

        Args:
          box: top, left, height and width in pixels of the whole picture, rounded
            to whole pixels.
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
        """A region, resized bilinearly with antialiasing by Pillow, for evaluation.

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
        """The whole picture, at ``scale`` times its size or slightly larger."""
        if self._pixels is not None:
            return self._pixels
        sides = math.ceil(self.height * scale), math.ceil(self.width * scale)
        least = None if scale == 1 else sides
        pixels = pictures.decode(self._encoded, self._channels, self._damaged, least)
        if scale == 1:
            self._pixels = pixels
        return pixels
