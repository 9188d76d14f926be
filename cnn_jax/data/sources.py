"""Where batches come from: the protocol between data and training.

A source says which examples make up which batch. In memory an *item* of a batch
is the examples' numbers, and the pixels, on the device since the start, are
gathered inside the compiled step; a stream's items carry pixels themselves.
Several processes (hosts) each get their own rows of every global batch.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data, names
from cnn_jax.data.dataset import Dataset, random_order
from cnn_jax.data.preprocess import Statistics, statistics

Item = dict[str, Any]
Split = Literal["train", "test"]


@runtime_checkable
class Source(Protocol):
    """A training set and an evaluated set, in batches.

    Attributes:
      name: of the data set, for reports.
      num_classes: labels are 0 ... num_classes - 1.
      image_shape: height, width, channels of the uint8 images of a batch.
      num_train: training examples, an epoch.
      num_test: examples of the evaluated set.
      evaluated: what the evaluated set is, 'test' or 'validation'.
      fingerprint: identifies the data, in hexadecimal.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    num_train: int
    num_test: int
    evaluated: str
    fingerprint: str

    def statistics(self) -> Statistics:
        """Mean and standard deviation of the training images."""

    def resident(self) -> Any:
        """A tree of arrays to put on every device once; {} for a stream."""

    def train_batches(
        self, seed: int, batch_size: int, step: int, state: bytes = b""
    ) -> Iterator[tuple[Item, bytes]]:
        """Batches of the optimizer steps ``step``, ``step`` + 1, ... without end.

        Each epoch is a permutation by seed and epoch; permutations follow one
        another without a gap, so a batch may straddle two of them and nothing
        is dropped.

        Args:
          seed: of the order.
          batch_size: of the global batch, over all processes.
          step: the first step that is wanted.
          state: what came with the batch of step ``step`` - 1, if stored.

        Yields:
          This process's rows of the batch, a tree of NumPy arrays, and the
          state to store beside a checkpoint made after its step.
        """

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Item]:
        """Every example of a split once, in order; the last batch is padded.

        Args:
          split: 'train' or 'test'.
          batch_size: of the global batch, over all processes.

        Yields:
          This process's rows; 'mask' (float32) is 0 on padding.
        """

    def take(self, resident: Any, item: Item) -> dict[str, Any]:
        """The examples of an item: pure, run inside the compiled step.

        Args:
          resident: as `resident` gave it, on a device.
          item: that device's part of an item.

        Returns:
          'image' uint8 (n, h, w, c), 'label' int32 (n,), 'mask' float32 (n,).
        """


class InMemory:
    """A `Source` over arrays: shuffled numbers, gathered on the device.

    A step alone determines its batch, so resuming needs no stored state.

    Args:
      dataset: the arrays.
      process_index: this process (host) among ``process_count``.
      process_count: processes that share a global batch.
    """

    def __init__(
        self, dataset: Dataset, process_index: int = 0, process_count: int = 1
    ):
        self.dataset = dataset
        self.name = dataset.name
        self.num_classes = dataset.num_classes
        self.image_shape = dataset.image_shape
        self.num_train = len(dataset.train)
        self.num_test = len(dataset.test)
        self.evaluated = dataset.evaluated
        self.fingerprint = dataset.fingerprint
        self.process_index = process_index
        self.process_count = process_count

    def statistics(self) -> Statistics:
        """Mean and standard deviation of the training images."""
        return statistics(self.dataset.train.images)

    def resident(self) -> dict[str, np.ndarray]:
        """Both sets in one array, training examples first."""
        parts = (self.dataset.train, self.dataset.test)
        return {
            "image": np.concatenate([part.images for part in parts]),
            "label": np.concatenate([part.labels for part in parts]),
        }

    def train_batches(
        self, seed: int, batch_size: int, step: int, state: bytes = b""
    ) -> Iterator[tuple[Item, bytes]]:
        """See `Source.train_batches`; the state is always empty."""
        rows = process_rows(batch_size, self.process_index, self.process_count)
        batches = order(seed, self.num_train, batch_size, step)
        return (({"index": batch[rows]}, b"") for batch in batches)

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Item]:
        """See `Source.eval_batches`."""
        rows = process_rows(batch_size, self.process_index, self.process_count)
        first, count = {
            "train": (0, self.num_train),
            "test": (self.num_train, self.num_test),
        }[split]
        for index, mask in in_order(count, batch_size):
            yield {"index": first + index[rows], "mask": mask[rows]}

    def take(self, resident: Any, item: Item) -> dict[str, jax.Array]:
        """See `Source.take`."""
        index = item["index"]
        return {
            "image": resident["image"][index],
            "label": resident["label"][index],
            "mask": item.get("mask", jnp.ones(index.shape, jnp.float32)),
        }


def order(seed: int, size: int, batch_size: int, step: int) -> Iterator[np.ndarray]:
    """Numbers of the examples of the batches from ``step`` on, without end.

    Args:
      seed: of the permutations.
      size: examples of an epoch.
      batch_size: examples of a batch; it may be larger than ``size``.
      step: number of the first batch.

    Yields:
      int32 (batch_size,).
    """
    epoch, begin = divmod(step * batch_size, size)
    left = random_order(size, seed, epoch)[begin:].astype(np.int32)
    while True:
        while len(left) < batch_size:
            epoch += 1
            left = np.append(left, random_order(size, seed, epoch).astype(np.int32))
        yield left[:batch_size]
        left = left[batch_size:]


def in_order(size: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers 0 ... size - 1 in batches, the last one padded with 0.

    Args:
      size: examples in all.
      batch_size: examples of a batch.

    Yields:
      int32 (batch_size,), and a float32 mask of the same shape, 0 on padding.
    """
    for start in itertools.takewhile(
        lambda start: start < size, itertools.count(0, batch_size)
    ):
        index = np.arange(start, start + batch_size, dtype=np.int32)
        mask = index < size
        yield np.where(mask, index, 0), mask.astype(np.float32)


def process_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """Which rows of a global batch belong to a process.

    Raises:
      ConfigError: the batch does not divide by the processes.
    """
    if batch_size < 1 or batch_size % process_count:
        raise names.ConfigError(
            f"batch of {batch_size} does not divide by {process_count} processes"
        )
    size = batch_size // process_count
    return slice(process_index * size, (process_index + 1) * size)


def open_source(
    section: Mapping[str, Any], process_index: int = 0, process_count: int = 1
) -> Source:
    """The source that a config section ``dataset`` describes.

    Args:
      section: ``name`` and fields, see `cnn_jax.data`.
      process_index: this process (host) among ``process_count``.
      process_count: processes that share a global batch.

    Returns:
      The source of its batches.

    Raises:
      ConfigError: unknown name or field, or data that cannot be used.
    """
    found = data.load(**section)
    if isinstance(found, Dataset):
        return InMemory(found, process_index, process_count)
    return found(process_index, process_count)
