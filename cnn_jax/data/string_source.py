"""Lines of digits as a source of batches: endless for training, fixed for tests."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn_jax import names
from cnn_jax.data import memory, preprocess
from cnn_jax.data.dataset import Arrays, Dataset
from cnn_jax.data.item import Item, Split
from cnn_jax.data.order import in_order, process_rows
from cnn_jax.data.strings import DigitStrings, StringBatch

STATISTICS_LINES = 512  # from which mean and standard deviation are estimated


class StringSource:
    """A `cnn_jax.data.sources.Source` of composed lines.

    A step's batch depends only on (seed, step). The labels of isolated digits are
    classes, (n,); those of lines are strings (see
    `cnn_jax.data.strings.StringBatch`).

    Args:
      name: name of the dataset.
      num_classes: labels are 0 ... num_classes - 1.
      train: lines of the training digits.
      test: lines of the test digits.
      evaluated: 'test' or 'validation'.
      num_lines: number of lines in each of the two evaluated sets.
      isolated: single digits centred in a square, in place of lines.
      process_index: this process (host) among ``process_count``.
      process_count: processes that share a global batch.

    Attributes:
      strings: labels are strings, not classes.
      endless: every training line is new, so a batch may exceed ``num_train``.
    """

    endless = True

    def __init__(
        self,
        name: str,
        num_classes: int,
        train: DigitStrings,
        test: DigitStrings,
        evaluated: str,
        num_lines: int,
        isolated: bool,
        process_index: int = 0,
        process_count: int = 1,
    ):
        self.name = name
        self.num_classes = num_classes
        self.train, self.test = train, test
        self.evaluated = evaluated
        self.num_train = self.num_test = num_lines
        self.isolated = isolated
        self.strings = not isolated
        self.image_shape = (train.height, train.width, 1)
        self.process_index = process_index
        self.process_count = process_count

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the evaluated lines, in hexadecimal."""
        digest = hashlib.sha256()
        for split in ("train", "test"):
            for array in self._evaluated(split).values():
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def statistics(self) -> preprocess.Statistics:
        """Mean and standard deviation of lines of the training digits."""
        return preprocess.statistics(self.train.batch(0, STATISTICS_LINES)["image"])

    def resident(self) -> dict[str, np.ndarray]:
        """Empty: the batches carry their pixels."""
        return {}

    def train_batches(
        self, seed: int, batch_size: int, step: int, state: bytes = b""
    ) -> Iterator[tuple[Item, bytes]]:
        """See `Source.train_batches`; the state is always empty."""
        rows = process_rows(batch_size, self.process_index, self.process_count)
        lines = dataclasses.replace(self.train, seed=seed)
        while True:
            item = self._item(lines.batch(step, batch_size))
            yield {key: array[rows] for key, array in item.items()}, b""
            step += 1

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Item]:
        """See `Source.eval_batches`."""
        rows = process_rows(batch_size, self.process_index, self.process_count)
        lines = self._evaluated(split)
        for index, mask in in_order(self.num_test, batch_size):
            item = {key: array[index[rows]] for key, array in lines.items()}
            yield {**item, "mask": mask[rows]}

    def take(self, resident: Any, item: Item) -> dict[str, Any]:
        """See `Source.take`; for lines also 'length' and 'span'."""
        del resident
        count = item["label"].shape[:1]
        return {"mask": jnp.ones(count, jnp.float32), **item}

    def _evaluated(self, split: str) -> dict[str, np.ndarray]:
        """The fixed lines of a split."""
        lines = {"train": self.train, "test": self.test}[split]
        return self._item(lines.test_set(self.num_test))

    def _item(self, lines: StringBatch) -> dict[str, Any]:
        """Lines as an item of a batch."""
        if self.isolated:
            return {"image": lines["image"], "label": lines["label"][:, 0]}
        return dict(lines)


def load(
    open_digits: Callable[..., Dataset],
    digits: Mapping[str, Any],
    num_lines: int = 1000,
    isolated: bool = False,
    min_length: int = 3,
    max_length: int = 5,
    height: int = 32,
    glyph_height: int = 20,
    spacing: tuple[int, int] = (1, 5),
    touching: float = 0.5,
    overlap: int = 4,
    jitter: int = 3,
    noise: float = 0.0,
) -> Callable[[int, int], StringSource]:
    """Lines composed from the digits of another dataset.

    Args:
      open_digits: `cnn_jax.data.load`; not a field of the section.
      digits: config section of the digits ('name' and fields).
      num_lines: number of lines in each of the two evaluated sets, one made of the
        training digits and one of the test digits.
      isolated: single digits centred in a square, in place of lines.
      min_length: see `DigitStrings`, as for all arguments below.
      max_length: digits of the longest line.
      height: rows of a line.
      glyph_height: rows of a digit.
      spacing: minimum and maximum columns between digits that do not touch.
      touching: probability that two adjacent digits touch.
      overlap: maximum columns that touching digits share.
      jitter: maximum vertical shift in rows.
      noise: standard deviation of the pixel noise.

    Returns:
      A function from (process_index, process_count) to the source.

    Raises:
      ConfigError: digits or fields that cannot form lines.
    """
    if "name" not in digits:
        raise names.ConfigError("dataset.digits needs a 'name'")
    if num_lines < 1:
        raise names.ConfigError(f"dataset: num_lines {num_lines} is not positive")
    found = open_digits(**digits)

    def lines(arrays: Arrays, columns: int) -> DigitStrings:
        line = DigitStrings(
            images=arrays.images,
            labels=arrays.labels,
            min_length=min_length,
            max_length=max_length,
            height=height,
            columns=0 if isolated else columns,
            glyph_height=glyph_height,
            spacing=(spacing[0], spacing[1]),
            touching=float(touching),
            overlap=overlap,
            jitter=jitter,
            noise=float(noise),
        )
        return line.isolated() if isolated else line

    # Training and test digits differ in width; their lines must not.
    columns = max(lines(part, 0).width for part in (found.train, found.test))
    train, test = lines(found.train, columns), lines(found.test, columns)
    memory.check(
        num_lines * train.height * train.width,
        f"dataset: {num_lines:,} lines of {train.height}x{train.width} pixels",
        "reduce num_lines, max_length or height",
    )
    return functools.partial(
        StringSource,
        "digit_strings",
        found.num_classes,
        train,
        test,
        found.evaluated,
        num_lines,
        isolated,
    )
