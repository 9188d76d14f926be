"""Sources of batches: the protocol between data and training.

A source determines the examples of each batch. For a set in memory, an *item* holds
only the examples' numbers: the pixels are on the device from the start, and the
compiled step gathers them. The items of a stream carry the pixels. With several
processes (hosts), each receives its own rows of every global batch.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from cnn_jax import data, names
from cnn_jax.data import cache, given
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.disk import CACHE_FROM, OnDisk
from cnn_jax.data.item import Item, Split
from cnn_jax.data.order import in_order, process_rows, shuffled
from cnn_jax.data.preprocess import Statistics, statistics


@runtime_checkable
class Source(Protocol):
    """A training set and an evaluated set, in batches.

    Attributes:
      name: name of the dataset, for reports.
      num_classes: labels are 0 ... num_classes - 1.
      image_shape: height, width, channels of the uint8 images of a batch.
      num_train: training examples per epoch.
      num_test: examples of the evaluated set.
      evaluated: what the evaluated set is, 'test' or 'validation'.
      fingerprint: identifies the data, in hexadecimal.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    num_train: int
    num_test: int
    evaluated: Literal["test", "validation"]

    @property
    def fingerprint(self) -> str:
        """Identifies the data, in hexadecimal."""

    def statistics(self) -> Statistics:
        """Mean and standard deviation of the training images."""

    def resident(self) -> Any:
        """A tree of arrays to put on every device once; {} for a stream."""

    def train_batches(
        self, seed: int, batch_size: int, step: int, state: bytes = b""
    ) -> Iterator[tuple[Item, bytes]]:
        """Batches of the optimizer steps ``step``, ``step`` + 1, ... without end.

        Seed and epoch determine the permutation of each epoch. Permutations are
        concatenated without gaps, so a batch may straddle two of them and no example
        is dropped.

        Args:
          seed: seed of the order.
          batch_size: size of the global batch, over all processes.
          step: the first step.
          state: state yielded with the batch of step ``step`` - 1, if stored.

        Yields:
          This process's rows of the batch, a tree of NumPy arrays, and the
          state to store with a checkpoint made after its step.
        """

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Item]:
        """Every example of a split once, in order; the last batch is padded.

        Args:
          split: 'train' or 'test'.
          batch_size: size of the global batch, over all processes.

        Yields:
          This process's rows; 'mask' (float32) is 0 on padding.
        """

    def take(self, resident: Any, item: Item) -> dict[str, Any]:
        """The examples of an item: a pure function, run inside the compiled step.

        Args:
          resident: the result of `resident`, on a device.
          item: that device's part of an item.

        Returns:
          'image' uint8 (n, h, w, c), 'label' int32 (n,), 'mask' float32 (n,). In
          evaluation an example may have several views, which are consecutive in
          'image' (see `average_views`).
        """


class InMemory:
    """A `Source` over arrays: shuffled numbers, gathered on the device.

    The step alone determines its batch, so resuming needs no stored state.

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
        self.class_names = dataset.class_names
        self.image_shape = dataset.image_shape
        self.num_train = len(dataset.train)
        self.num_test = len(dataset.test)
        self.evaluated = dataset.evaluated
        self.fingerprint = dataset.fingerprint
        self.process_index = process_index
        self.process_count = process_count

    def statistics(self) -> Statistics:
        """Mean and standard deviation of the training images, cached beside them."""
        train = self.dataset.train
        if not self.dataset.path or len(train) < CACHE_FROM:
            return statistics(train.images)
        store = cache.Cache(self.dataset.path)
        name = f"statistics-v1-{train.digest[:32]}"
        found = store.read(name)
        if found is None:
            found = dataclasses.asdict(statistics(train.images))
            store.write(name, found, name)
        return Statistics(**found)

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
        places = np.arange(batch_size)[rows]
        return (
            ({"index": shuffled(seed, self.num_train, step * batch_size + places)}, b"")
            for step in itertools.count(step)
        )

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


def average_views(
    logits: Float[Array, "views classes"], labels: Int[Array, " n"]
) -> Float[Array, "n classes"]:
    """Logits of examples with several views (ten-crop evaluation).

    The softmax predictions of an example's views are averaged (Krizhevsky et al.
    2012, section 4.1). The result is the logarithm of that average, or the logits
    themselves if each example has one view.

    Args:
      logits: logits of all views; the views of an example are consecutive.
      labels: labels of the examples, whose number divides that of the views.

    Returns:
      One row per example.
    """
    views, count = logits.shape[0], labels.shape[0]
    if views == count:
        return logits
    parts = jax.nn.log_softmax(logits).reshape(count, views // count, -1)
    return jax.nn.logsumexp(parts, 1) - jnp.log(views // count)


def central_view(
    images: Shaped[Array, "views h w c"], mask: Float[Array, " n"]
) -> Shaped[Array, "n h w c"]:
    """The central crop of each example of ten-crop evaluation.

    Args:
      images: all views; the views of an example are consecutive.
      mask: one number per example.

    Returns:
      One image per example; the images themselves if each example has one view.

    Raises:
      ConfigError: an example has neither one view nor ten.
    """
    views = images.shape[0] // mask.shape[0]
    if views not in (1, 10):
        raise names.ConfigError(
            f"an example must have one view or ten crops, got {views}"
        )
    return images[4::10] if views == 10 else images  # see `transforms.TenCrop`


def open_source(
    section: Mapping[str, Any], process_index: int = 0, process_count: int = 1
) -> Source:
    """Open the source of a config section ``dataset``.

    Args:
      section: ``name`` and fields, see `cnn_jax.data`. With a non-empty section
        ``stream`` (the fields of `cnn_jax.data.streams.Stream`) the set is streamed;
        otherwise it is loaded into memory.
      process_index: this process (host) among ``process_count``.
      process_count: processes that share a global batch.

    Returns:
      The source of its batches.

    Raises:
      ConfigError: unknown name or field, or data that cannot be used.
    """
    fields = dict(section)
    stream = fields.pop("stream", {})
    if not isinstance(section.get("stream", {}), Mapping):
        raise names.ConfigError(
            f"dataset.stream must be a section, got {stream!r}: add a `stream` "
            "section to the config, as in configs/resnet50_imagenet.py"
        )
    found = data.open_set(**fields)
    if stream and (isinstance(found, Source) or callable(found)):
        raise names.ConfigError(
            f"dataset {fields['name']!r} generates its own batches and cannot be "
            "streamed"
        )
    if isinstance(found, Source):
        return found
    if callable(found):
        made = found(process_index, process_count)
        if not isinstance(made, Source):
            raise given.no_data(fields["name"], made)
        return made
    if not isinstance(found, OnDisk | Dataset):
        raise given.no_data(fields["name"], found)
    if not stream:
        dataset = found.in_memory() if isinstance(found, OnDisk) else found
        return InMemory(dataset, process_index, process_count)
    if not isinstance(found, OnDisk):
        raise names.ConfigError(
            f"dataset {fields['name']!r} is in memory and cannot be streamed"
        )
    if found.size:
        raise names.ConfigError(
            f"dataset.size {found.size} applies to datasets in memory; set the size of "
            "a stream with dataset.stream.train.size and dataset.stream.test.size"
        )
    if found.damaged != "refuse":
        raise names.ConfigError(
            f"dataset.damaged {found.damaged!r} applies to datasets in memory; use "
            "dataset.stream.damaged for a stream"
        )
    try:
        from cnn_jax.data import streams
    except ImportError as error:
        raise names.ConfigError(
            f"dataset.stream needs a package that is not installed ({error.name}): "
            "run `pip install -e '.[streams]'` in the project's folder"
        ) from error
    supplied: dict[str, Any] = {
        "on_disk": found,
        "process_index": process_index,
        "process_count": process_count,
    }
    names.check_fields("dataset.stream", streams.Stream, stream, list(supplied))
    return streams.Stream(**stream, **supplied)
