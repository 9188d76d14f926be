"""The properties of its training data that a network needs, without the data.

A run records them at its start (``data.npz``), so that the network can be used
without the dataset.
"""

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from cnn_jax import names
from cnn_jax.data.item import Item, Split
from cnn_jax.data.preprocess import Statistics
from cnn_jax.data.sources import Source

ARRAYS = tuple(field.name for field in dataclasses.fields(Statistics))


@dataclasses.dataclass(frozen=True)
class Facts:
    """A dataset without its examples.

    Attributes:
      name: name of the set.
      num_classes: labels are 0 ... num_classes - 1.
      image_shape: height, width, channels of the uint8 images of a batch.
      num_train: training examples.
      num_test: examples of the evaluated set.
      evaluated: what the evaluated set is, 'test' or 'validation'.
      fingerprint: identifies the data, in hexadecimal; '' if it was never opened.
      class_names: names of the classes in order; () if unknown.
      strings: labels are strings, not classes.
      endless: every training example is new.
      statistics: statistics of the training images.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    num_train: int
    num_test: int
    evaluated: Literal["test", "validation"]
    fingerprint: str
    class_names: tuple[str, ...]
    strings: bool
    endless: bool
    statistics: Statistics

    @classmethod
    def of(cls, source: Source, statistics: Statistics) -> "Facts":
        """The facts of an open source with known statistics."""
        height, width, channels = map(int, source.image_shape)
        return cls(
            name=source.name,
            num_classes=int(source.num_classes),
            image_shape=(height, width, channels),
            num_train=int(source.num_train),
            num_test=int(source.num_test),
            evaluated=source.evaluated,
            fingerprint=source.fingerprint,
            class_names=tuple(getattr(source, "class_names", ())),
            strings=bool(getattr(source, "strings", False)),
            endless=bool(getattr(source, "endless", False)),
            statistics=statistics,
        )

    def words(self) -> str:
        """All fields except the statistics, as JSON."""
        fields = {key: value for key, value in vars(self).items()}
        del fields["statistics"]
        return json.dumps(fields)

    def arrays(self) -> dict[str, np.ndarray]:
        """The statistics, by name (`ARRAYS`)."""
        return {name: getattr(self.statistics, name) for name in ARRAYS}

    @classmethod
    def read(cls, words: str, arrays: Mapping[str, np.ndarray]) -> "Facts":
        """The facts from the results of `words` and `arrays`.

        Raises:
          ValueError, KeyError, TypeError: they do not belong to a `Facts`.
        """
        fields = json.loads(words)
        for name in ("image_shape", "class_names"):
            fields[name] = tuple(fields[name])
        kept = Statistics(**{name: arrays[name] for name in ARRAYS})
        return cls(**fields, statistics=kept)

    def to_bytes(self) -> bytes:
        """The content of ``data.npz``."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, json=np.array(self.words()), **self.arrays())
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Facts | None":
        """The facts from the result of `to_bytes`; None if it is damaged."""
        try:
            # The archive has a checksum for each array; NumPy and zipfile raise many
            # types of errors on damage.
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                return cls.read(str(found["json"]), found)
        except Exception:
            return None


class Recorded:
    """A `Source` with recorded facts that opens the data only when batches are needed.

    Args:
      facts: facts of the data.
      open_data: function that opens the data.
      owner: owner of the data, for messages.
    """

    def __init__(self, facts: Facts, open_data: Callable[[], Source], owner: str):
        self.facts, self._open, self._owner = facts, open_data, owner
        self._opened: Source | None = None
        self.name, self.num_classes = facts.name, facts.num_classes
        self.image_shape, self.class_names = facts.image_shape, facts.class_names
        self.num_train, self.num_test = facts.num_train, facts.num_test
        self.evaluated, self.fingerprint = facts.evaluated, facts.fingerprint
        self.strings, self.endless = facts.strings, facts.endless

    @property
    def data(self) -> Source:
        """The data itself, opened on first use.

        Raises:
          ConfigError: the data is missing, or differs from the recorded data.
        """
        if self._opened is None:
            found = self._open()
            self._check(found)
            self._opened = found
            # Data never opened before has no recorded number of examples.
            self.num_train, self.num_test = found.num_train, found.num_test
        return self._opened

    def _check(self, found: Source) -> None:
        wanted = self.facts.fingerprint
        if wanted and found.fingerprint != wanted:
            raise names.ConfigError(
                f"{self._owner} was trained on other data (fingerprint {wanted[:12]}) "
                f"than its dataset now has ({found.fingerprint[:12]}); pass the "
                "directory of the original data with --data_dir"
            )
        for what in ("num_classes", "image_shape"):
            if getattr(found, what) != getattr(self.facts, what):
                raise names.ConfigError(
                    f"{self._owner} needs data with {what} "
                    f"{getattr(self.facts, what)}, got {getattr(found, what)}"
                )

    def statistics(self) -> Statistics:
        """The recorded statistics."""
        return self.facts.statistics

    def resident(self) -> Any:
        """See `Source.resident`."""
        return self.data.resident()

    def train_batches(
        self, seed: int, batch_size: int, step: int, state: bytes = b""
    ) -> Iterator[tuple[Item, bytes]]:
        """See `Source.train_batches`."""
        return self.data.train_batches(seed, batch_size, step, state)

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Item]:
        """See `Source.eval_batches`."""
        return self.data.eval_batches(split, batch_size)

    def take(self, resident: Any, item: Item) -> dict[str, Any]:
        """See `Source.take`."""
        return self.data.take(resident, item)
