"""From an encoded picture to an image of fixed size, on the host.

The crops of the papers, for training (random) and evaluation. A transform selects a
region of the picture and an output size; only that region is resized (see
`cnn_jax.data.regions`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cnn_jax import names
from cnn_jax.data.pictures import LARGEST_SIDE
from cnn_jax.data.regions import Box, Picture


@runtime_checkable
class Transform(Protocol):
    """From a picture to the image (or images) of an example; can be pickled.

    Attributes:
      size: height and width of the result.
      views: images per example, whose predictions are averaged.
    """

    @property
    def size(self) -> int:
        """Height and width of the result."""

    @property
    def views(self) -> int:
        """Images per example."""

    def __call__(self, picture: Picture, random: np.random.Generator) -> np.ndarray:
        """uint8 (size, size, channels); (views, size, size, channels) for views > 1."""


@dataclasses.dataclass(frozen=True)
class ScaleCrop:
    """Scale augmentation: a random shorter side, then a crop of fixed size.

    Simonyan and Zisserman (2014), section 3.1 (there [256, 512]), and He et al.
    (2015), section 3.4: the shorter side is drawn from [256, 480], then a 224x224
    crop of the picture or its mirror image.

    Attributes:
      size: side of the crop.
      shorter: minimum and maximum of the shorter side; equal for a fixed scale.
      flip: mirror left to right with probability 1/2.
    """

    size: int = 224
    shorter: Sequence[int] = (256, 480)
    flip: bool = True
    views = 1

    def __post_init__(self):
        low, high = _pair(self, "shorter")
        _check(self.size > 0, f"size {self.size} is not positive")
        _check_side(high)
        _check(
            self.size <= low <= high,
            "shorter must be an ascending pair, at least the size "
            f"{self.size}, got {tuple(self.shorter)}",
        )

    def __call__(self, picture: Picture, random: np.random.Generator) -> np.ndarray:
        """uint8 (size, size, channels)."""
        shorter = int(random.integers(self.shorter[0], self.shorter[1] + 1))
        height, width = scaled(picture, shorter)
        top = int(random.integers(0, height - self.size + 1))
        left = int(random.integers(0, width - self.size + 1))
        box = unscaled(picture, (height, width), (top, left, self.size, self.size))
        return picture.cut(box, self.size, self.flip and random.random() < 0.5)


@dataclasses.dataclass(frozen=True)
class AlexNetCrop:
    """A crop of the central square, mirrored with probability 1/2.

    Krizhevsky et al. (2012), sections 2 and 4.1: the shorter side is resized to 256,
    the central 256x256 square is kept, and 224x224 patches are drawn from it.
    (Their colour shift is `cnn_jax.data.augment.pca_colour`.)

    Attributes:
      size: side of the patch.
      shorter: side of the square.
      flip: mirror left to right with probability 1/2.
    """

    size: int = 224
    shorter: int = 256
    flip: bool = True
    views = 1

    def __post_init__(self):
        _check_sizes(self.size, self.shorter)

    def __call__(self, picture: Picture, random: np.random.Generator) -> np.ndarray:
        """uint8 (size, size, channels)."""
        whole = scaled(picture, self.shorter)
        top, left = (
            (side - self.shorter) // 2
            + int(random.integers(0, self.shorter - self.size + 1))
            for side in whole
        )
        box = unscaled(picture, whole, (top, left, self.size, self.size))
        return picture.cut(box, self.size, self.flip and random.random() < 0.5)


@dataclasses.dataclass(frozen=True)
class InceptionCrop:
    """A region of random area and shape, resized to a square.

    Szegedy et al. (2015), "Going deeper with convolutions", section 6, in the
    form of torchvision's ``RandomResizedCrop``: up to ten draws of the area
    (uniform) and the aspect ratio (log-uniform), otherwise the centre.

    Attributes:
      size: side of the result.
      area: minimum and maximum share of the picture's area.
      ratio: minimum and maximum width / height.
      flip: mirror left to right with probability 1/2.
    """

    size: int = 224
    area: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    flip: bool = True
    views = 1

    def __post_init__(self):
        low, high = _pair(self, "area")
        _check(self.size > 0, f"size {self.size} is not positive")
        _check_side(self.size)
        _check(
            0 < low <= high <= 1,
            f"area must be an ascending pair in (0, 1], got {tuple(self.area)}",
        )
        low, high = _pair(self, "ratio")
        _check(
            0 < low <= high,
            f"ratio must be an ascending, positive pair, got {tuple(self.ratio)}",
        )

    def __call__(self, picture: Picture, random: np.random.Generator) -> np.ndarray:
        """uint8 (size, size, channels)."""
        box = self._box(picture, random)
        return picture.cut(box, self.size, self.flip and random.random() < 0.5)

    def _box(self, picture: Picture, random: np.random.Generator) -> Box:
        low, high = map(math.log, self.ratio)
        for _ in range(10):
            area = (
                random.uniform(self.area[0], self.area[1])
                * picture.height
                * picture.width
            )
            ratio = math.exp(random.uniform(low, high))
            width = round(math.sqrt(area * ratio))
            height = round(math.sqrt(area / ratio))
            if 0 < width <= picture.width and 0 < height <= picture.height:
                top = int(random.integers(0, picture.height - height + 1))
                left = int(random.integers(0, picture.width - width + 1))
                return top, left, height, width
        ratio = min(max(picture.width / picture.height, self.ratio[0]), self.ratio[1])
        width = min(picture.width, round(picture.height * ratio))
        height = min(picture.height, round(picture.width / ratio))
        top, left = (picture.height - height) // 2, (picture.width - width) // 2
        return top, left, height, width


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """The central square after resizing the shorter side.

    Attributes:
      size: side of the result.
      shorter: length of the shorter side.
    """

    size: int = 224
    shorter: int = 256
    views = 1

    def __post_init__(self):
        _check_sizes(self.size, self.shorter)

    def __call__(self, picture: Picture, random: np.random.Generator) -> np.ndarray:
        """uint8 (size, size, channels); nothing is random."""
        del random
        whole = scaled(picture, self.shorter)
        # rounded as in torchvision
        top, left = (round((side - self.size) / 2) for side in whole)
        box = unscaled(picture, whole, (top, left, self.size, self.size))
        return picture.view(box, (self.size, self.size))


@dataclasses.dataclass(frozen=True)
class TenCrop:
    """Four corner crops and the centre of the central square, and their mirror images.

    Krizhevsky et al. (2012), section 4.1; the "10-crop testing" of He et al.
    (2015), table 3.

    Attributes:
      size: side of each view.
      shorter: side of the square.
    """

    size: int = 224
    shorter: int = 256
    views = 10

    def __post_init__(self):
        _check_sizes(self.size, self.shorter)

    def __call__(self, picture: Picture, random: np.random.Generator) -> np.ndarray:
        """uint8 (10, size, size, channels); nothing is random."""
        square = CenterCrop(self.shorter, self.shorter)(picture, random)
        end, middle = self.shorter - self.size, (self.shorter - self.size) // 2
        corners = ((0, 0), (0, end), (end, 0), (end, end), (middle, middle))
        views = [
            square[top : top + self.size, left : left + self.size]
            for top, left in corners
        ]
        return np.stack([*views, *(view[:, ::-1] for view in views)])


TRAIN: dict[str, Callable[..., Any]] = {
    "scale": ScaleCrop,
    "alexnet": AlexNetCrop,
    "inception": InceptionCrop,
}
TEST: dict[str, Callable[..., Any]] = {"center": CenterCrop, "ten_crop": TenCrop}


def build(kind: str, section: Mapping[str, Any]) -> Transform:
    """Build the transform of a config section.

    Args:
      kind: 'train' or 'test', which selects the table of names.
      section: ``name`` and fields; a transform of the other table is available as
        ``cnn_jax.data.transforms:CenterCrop`` and so on.

    Returns:
      The transform.

    Raises:
      ConfigError: unknown name, field or value.
    """
    table = {"train": TRAIN, "test": TEST}[kind]
    return names.build(f"dataset.stream.{kind}", section, table)


def scaled(picture: Picture, shorter: int) -> tuple[int, int]:
    """Height and width after resizing the shorter side to ``shorter``."""
    if picture.height <= picture.width:
        return shorter, int(shorter * picture.width / picture.height)
    return int(shorter * picture.height / picture.width), shorter


def unscaled(picture: Picture, whole: tuple[int, int], box: Box) -> Box:
    """A box in a picture resized to ``whole``, in pixels of the original picture."""
    down, across = picture.height / whole[0], picture.width / whole[1]
    top, left, height, width = box
    return top * down, left * across, height * down, width * across


def _pair(crop: Any, field: str) -> Sequence[Any]:
    """Check a field of two numbers; makes it a tuple, which JSON restores as a list."""
    value = tuple(getattr(crop, field))
    _check(len(value) == 2, f"{field} must be two numbers, got {value}")
    object.__setattr__(crop, field, value)
    return value


def _check_sizes(size: int, shorter: int) -> None:
    _check(
        0 < size <= shorter,
        f"size must be positive and at most shorter = {shorter}, got {size}",
    )
    _check_side(shorter)


def _check_side(side: int) -> None:
    _check(
        side <= LARGEST_SIDE, f"sides must be at most {LARGEST_SIDE} pixels, got {side}"
    )


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise names.ConfigError(f"dataset.stream: {message}")
