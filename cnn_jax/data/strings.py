"""Lines of digits, composed on the fly from images of single digits.

Each line is a pure function of (seed, step, index). The stream is endless and
stateless, so a training run resumes at any step. A test set is a separate stream.
"""

import dataclasses
from typing import Literal, TypedDict

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from cnn_jax import names
from cnn_jax.data import memory
from cnn_jax.data.pictures import LARGEST_SIDE

INK = 64  # grey level, of 255, from which a pixel of a digit counts as ink


class StringBatch(TypedDict):
    """A batch of lines; labels and spans past the length of a line are -1.

    Attributes:
      image: (n, height, width, 1) uint8; ink is 255.
      label: (n, max_length) int32.
      length: (n,) int32.
      span: (n, max_length, 2) int32, first ink column of each digit and the first
        column after its last; for evaluation only.
    """

    image: UInt8[np.ndarray, "n height width 1"]
    label: Int[np.ndarray, "n max_length"]
    length: Int[np.ndarray, " n"]
    span: Int[np.ndarray, "n max_length 2"]


@dataclasses.dataclass(frozen=True)
class DigitStrings:
    """A stream of lines of digits.

    Attributes:
      images: digits to compose lines from, (n, h, w) or (n, h, w, 1) uint8,
        bright ink on black.
      labels: their classes, (n,).
      seed: seed of every random choice.
      min_length: digits of the shortest line.
      max_length: digits of the longest line.
      height: rows of a line.
      columns: columns of a line; 0 for the most that the longest line can need.
      position: horizontal position of the digits in a line, 'random' or 'centre'.
      glyph_height: rows that a digit's image is scaled to.
      spacing: minimum and maximum empty columns between digits that do not touch.
      touching: probability that two adjacent digits touch: they are moved together
        until their ink meets.
      overlap: maximum columns by which the boxes of touching digits overlap.
      jitter: maximum vertical displacement of a digit, in rows.
      noise: standard deviation of Gaussian pixel noise, where 1 is full range.

    Raises:
      ConfigError: on construction, images or fields that cannot form lines.
    """

    images: np.ndarray
    labels: np.ndarray
    seed: int = 0
    min_length: int = 3
    max_length: int = 5
    height: int = 32
    columns: int = 0
    position: Literal["random", "centre"] = "random"
    glyph_height: int = 20
    spacing: tuple[int, int] = (1, 5)
    touching: float = 0.5
    overlap: int = 4
    jitter: int = 3
    noise: float = 0.0
    _glyphs: list[np.ndarray] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self):
        self._check()
        object.__setattr__(self, "_glyphs", _glyphs(self.images, self.glyph_height))
        if self.columns and self.columns < self._needed_columns():
            raise names.ConfigError(
                f"columns {self.columns} is too small: {self.max_length} digits can "
                f"need {self._needed_columns()} (0 uses this number)"
            )

    def _check(self):
        """Reject fields that cannot form lines, with value and requirement."""
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) not in (3, 4):
            raise names.ConfigError(
                "images must be uint8 of shape (n, h, w) or (n, h, w, 1), got "
                f"{self.images.dtype} {shape}"
            )
        if len(shape) == 4 and shape[3] != 1:
            raise names.ConfigError(f"images must have 1 channel, got {shape[3]}")
        if shape[0] == 0 or self.labels.shape != (shape[0],):
            raise names.ConfigError(
                f"labels must be one per image, with at least 1 image, got "
                f"{shape[0]} images and labels of shape {self.labels.shape}"
            )
        if self.labels.min() < 0:
            raise names.ConfigError(f"label {self.labels.min()} is negative")
        if not 1 <= self.min_length <= self.max_length:
            raise names.ConfigError(
                "min_length must be at least 1 and at most max_length, got "
                f"{self.min_length} and {self.max_length}"
            )
        if not 1 <= self.glyph_height <= self.height <= LARGEST_SIDE:
            raise names.ConfigError(
                "glyph_height must be at least 1 and at most height, and height at "
                f"most {LARGEST_SIDE}, got {self.glyph_height} and {self.height}"
            )
        columns = -(-shape[2] * self.glyph_height // shape[1])
        memory.check(
            shape[0] * self.glyph_height * columns,
            f"{shape[0]:,} digits of {self.glyph_height}x{columns} pixels",
            "reduce glyph_height",
        )
        if self.glyph_height + 2 * self.jitter > self.height:
            raise names.ConfigError(
                f"height {self.height} is too small: digits of {self.glyph_height} "
                f"rows with jitter {self.jitter} need "
                f"{self.glyph_height + 2 * self.jitter}"
            )
        if self.spacing[0] > self.spacing[1] or self.spacing[0] < 0:
            raise names.ConfigError(
                f"spacing must be (least, most) columns, 0 or more, got {self.spacing}"
            )
        if not 0 <= self.touching <= 1:
            raise names.ConfigError(f"touching must be in [0, 1], got {self.touching}")
        if min(self.overlap, self.jitter, self.noise) < 0:
            raise names.ConfigError(
                "overlap, jitter and noise must not be negative, got "
                f"{self.overlap}, {self.jitter} and {self.noise}"
            )

    @property
    def width(self) -> int:
        """Columns of a line; the default is a multiple of 4."""
        return self.columns or self._needed_columns()

    def isolated(self) -> "DigitStrings":
        """The same digits one at a time, each centred in a square image."""
        return dataclasses.replace(
            self, min_length=1, max_length=1, columns=self.height, position="centre"
        )

    def _needed_columns(self) -> int:
        """Columns of the longest line of the widest digits, rounded up to 4."""
        widest = max(glyph.shape[1] for glyph in self._glyphs)
        most = self.max_length * widest + (self.max_length - 1) * self.spacing[1]
        return -(-most // 4) * 4

    def batch(self, step: int, size: int) -> StringBatch:
        """The training batch of a step.

        Args:
          step: any number from 0; the same step gives the same batch.
          size: number of lines.
        """
        return self._lines([self.seed, 0, step], size)

    def test_set(self, size: int, number: int = 0) -> StringBatch:
        """A fixed set of lines, drawn independently of all training batches.

        Its digits also come from ``images``: to test on held-out digits, construct a
        separate stream with their images.

        Args:
          size: number of lines.
          number: number of the set.
        """
        return self._lines([self.seed, 1, number], size)

    def _lines(self, entropy: list[int], size: int) -> StringBatch:
        """``size`` lines from one random stream."""
        rng = np.random.default_rng(entropy)
        batch = StringBatch(
            image=np.zeros((size, self.height, self.width, 1), np.uint8),
            label=np.full((size, self.max_length), -1, np.int32),
            length=rng.integers(
                self.min_length, self.max_length, size, np.int32, endpoint=True
            ),
            span=np.full((size, self.max_length, 2), -1, np.int32),
        )
        for row, length in enumerate(batch["length"]):
            chosen = rng.integers(len(self.labels), size=length)
            batch["label"][row, :length] = self.labels[chosen]
            self._write(batch["image"][row, :, :, 0], batch["span"][row], chosen, rng)
        if self.noise:
            noise = rng.normal(0, 255 * self.noise, batch["image"].shape)
            batch["image"] = np.clip(
                batch["image"] + noise.round().astype(np.int32), 0, 255
            ).astype(np.uint8)
        return batch

    def _write(
        self,
        line: np.ndarray,
        span: np.ndarray,
        chosen: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        """Write digits into an empty line, and their columns into ``span``."""
        centre = (self.height - self.glyph_height) // 2
        jitter = rng.integers(-self.jitter, self.jitter, len(chosen), endpoint=True)
        tops = (centre + jitter).tolist()
        touch = rng.random(len(chosen)) < self.touching
        gaps = rng.integers(*self.spacing, len(chosen), endpoint=True)
        glyphs = [self._glyphs[index] for index in chosen]
        left = 0
        for index, (glyph, top) in enumerate(zip(glyphs, tops, strict=True)):
            if index:
                gap = gaps[index]
                if touch[index]:
                    free = _free_columns(glyphs[index - 1], glyph, tops[index - 1], top)
                    gap = -min(free, self.overlap)
                left = max(span[index - 1, 1] + gap, 0)
            span[index] = left, left + glyph.shape[1]
            place = line[top : top + self.glyph_height, slice(*span[index])]
            np.maximum(place, glyph, out=place)
        # The line starts at column 0; shift it into place.
        length = len(chosen)
        end = span[:length, 1].max()
        shift = rng.integers(self.width - end, endpoint=True)
        if self.position == "centre":
            shift = self.width // 2 - end // 2
        line[:] = np.roll(line, shift, axis=1)
        span[:length] += shift


def _glyphs(images: np.ndarray, height: int) -> list[np.ndarray]:
    """Digits scaled to ``height`` rows and cut to their columns of ink."""
    rows, columns = images.shape[1:3]
    images = images.reshape(-1, rows, columns)
    if rows != height:
        size = round(columns * height / rows), height
        bilinear = Image.Resampling.BILINEAR
        images = np.stack(
            [
                np.asarray(Image.fromarray(image).resize(size, bilinear))
                for image in images
            ]
        )
    ink = np.greater_equal(images, INK).any(1)
    if not ink.any(1).all():
        index = int(ink.any(1).argmin())
        raise names.ConfigError(f"image {index} has no ink (no pixel of {INK} or more)")
    first = ink.argmax(1)
    end = ink.shape[1] - ink[:, ::-1].argmax(1)
    return [
        image[:, left:right]
        for image, left, right in zip(images, first, end, strict=True)
    ]


def _free_columns(
    before: np.ndarray, after: np.ndarray, top_before: int, top_after: int
) -> int:
    """Columns by which ``after`` can move over ``before`` until their ink meets."""
    rows = np.arange(before.shape[0])
    far = 4 * (before.shape[1] + after.shape[1])
    ink_before, ink_after = before >= INK, after >= INK
    room_before = np.where(ink_before.any(1), ink_before[:, ::-1].argmax(1), far)
    room_after = np.where(ink_after.any(1), ink_after.argmax(1), far)
    # Strokes can also meet diagonally, hence the adjacent rows.
    distance = np.abs((rows + top_before)[:, None] - (rows + top_after)[None, :])
    room = room_before[:, None] + room_after[None, :]
    return int(room[distance <= 1].min(initial=far))
