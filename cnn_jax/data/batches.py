"""Batches of a stream by number: fetches, decodes and crops pictures.

All classes here can be pickled and sent to a worker process.
"""

import dataclasses

import numpy as np

from cnn_jax.data import pictures, regions, transforms
from cnn_jax.data.disk import Part
from cnn_jax.data.item import Item
from cnn_jax.data.order import shuffled

ENDLESS = 2**40  # steps


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes the images of chosen examples.

    Attributes:
      part: the part of a dataset that holds the examples.
      transform: from a picture to an image.
      damaged: as in `pictures.decode`.
      seed: seed of the random crops.
    """

    part: Part
    transform: transforms.Transform
    damaged: pictures.Damaged
    seed: int = 0

    def batch(self, numbers: np.ndarray, positions: np.ndarray) -> Item:
        """Decode and crop a batch.

        Args:
          numbers: examples of the part, (n,).
          positions: position of each in the stream, which seeds its crop, (n,).

        Returns:
          'image' uint8 (n, size, size, channels), with an axis of views after
          the first if the transform has several, and 'label' int32 (n,).

        Raises:
          ConfigError: an example cannot be read or decoded; the message names its
            file.
        """
        size, channels = self.transform.size, self.part.reader.channels
        views = () if self.transform.views == 1 else (self.transform.views,)
        images = np.empty((len(numbers), *views, size, size, channels), np.uint8)
        labels = np.empty(len(numbers), np.int32)
        found = self.part.fetch(numbers)
        for row, (encoded, label) in enumerate(found):
            seeds = np.random.SeedSequence((self.seed, int(positions[row])))
            random = np.random.Generator(np.random.Philox(seeds))
            try:
                picture = regions.Picture(encoded, channels, self.damaged)
                images[row] = self.transform(picture, random)
            except pictures.PictureError as error:
                number = int(numbers[row])
                key = "dataset.stream.damaged"
                raise self.part.refusal(number, error, key) from error
            labels[row] = label
        return {"image": images, "label": labels}


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """The batches of optimizer steps, numbered from step ``first``."""

    maker: Maker
    batch_size: int
    rows: slice
    first: int

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Item:
        start = (self.first + index) * self.batch_size
        positions = start + np.arange(self.batch_size)[self.rows]
        numbers = shuffled(self.maker.seed, len(self.maker.part), positions)
        return self.maker.batch(numbers, positions)


@dataclasses.dataclass(frozen=True)
class InOrder:
    """Chosen examples in order, in batches with a 'mask'."""

    maker: Maker
    numbers: np.ndarray
    batch_size: int
    rows: slice

    def __len__(self) -> int:
        return -(-len(self.numbers) // self.batch_size)

    def __getitem__(self, index: int) -> Item:
        places = index * self.batch_size + np.arange(self.batch_size)[self.rows]
        real = places < len(self.numbers)
        item = self.maker.batch(self.numbers[places[real]], places[real])
        missing = len(places) - int(real.sum())
        padded = {
            key: np.pad(value, [(0, missing)] + [(0, 0)] * (value.ndim - 1))
            for key, value in item.items()
        }
        return {**padded, "mask": real.astype(np.float32)}
