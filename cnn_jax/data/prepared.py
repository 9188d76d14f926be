"""Datasets prepared by TFDS, read without TensorFlow.

A prepared set is a directory ``data_dir/name[/config]/version`` that
``tfds.builder_from_directory`` can open, with dataset_info.json, features.json and
array_record files.
"""

import concurrent.futures
import contextlib
import functools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from cnn_jax import names
from cnn_jax.data import pictures
from cnn_jax.data.disk import OnDisk, open_parts

VERSION = re.compile(r"\d+\.\d+\.\d+")


def directory(data_dir: str = "") -> str:
    """The root of prepared datasets.

    Args:
      data_dir: a directory, or '' for TFDS's default: the environment variable
        ``TFDS_DATA_DIR`` if set, otherwise ``~/tensorflow_datasets``.

    Returns:
      Its absolute path, which need not exist.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return os.path.abspath(os.path.expanduser(data_dir or default))


def check_writable(name: str, data_dir: str = "") -> None:
    """Refuse to prepare a set in a directory without any write permission.

    The check also applies to root, whom the system would let write, so that read-only
    data stay untouched.

    Args:
      name: name of the set, for the message.
      data_dir: as in `directory`; it need not exist yet.

    Raises:
      ConfigError: the directory has no write permission.
    """
    root = directory(data_dir)
    if os.path.isdir(root) and not os.stat(root).st_mode & 0o222:
        raise names.ConfigError(
            f"dataset {name!r} cannot be prepared under {root!r}: it is read-only; "
            "choose another directory with dataset.data_dir or TFDS_DATA_DIR"
        )


def available(data_dir: str = "") -> list[str]:
    """Names of the datasets prepared under ``data_dir``, sorted."""
    root = pathlib.Path(directory(data_dir))
    files = [*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]
    sets = {file.parent.parent for file in files if VERSION.fullmatch(file.parent.name)}
    return sorted(path.relative_to(root).as_posix() for path in sets)


def find(name: str, data_dir: str = "") -> str:
    """The directory of a prepared dataset.

    Args:
      name: ``set`` or ``set/config``, which select the newest version, or either
        with ``/version``.
      data_dir: as in `directory`.

    Returns:
      The directory that holds the set's dataset_info.json.

    Raises:
      ConfigError: no such prepared dataset.
    """
    root = directory(data_dir)
    folder = pathlib.Path(root, name)
    if (folder / "dataset_info.json").exists():
        return str(folder)
    versions = [path for path in folder.glob("*") if VERSION.fullmatch(path.name)]
    if versions:
        return str(max(versions, key=lambda path: [*map(int, path.name.split("."))]))
    near = [found for found in available(root) if found.startswith(name + "/")]
    if near:
        raise names.choices("config of dataset", name, near)
    listed = ", ".join(available(root)) or "none"
    place = f" --data_dir={data_dir}" if data_dir else ""
    raise names.ConfigError(
        f"unknown dataset {name!r}; choices: digits, digit_strings, folder, "
        f"package.module:function, or a set prepared under {root!r} ({listed}); "
        f"prepare a TFDS set with `python -m experiments.prepare {name}{place}`"
    )


# More classes than any set has; a damaged description may claim more.
LARGEST_CLASSES = 1_000_000


class Prepared:
    """A `Reader` of an image-classification set in TFDS's format.

    Args:
      name: name of the set, for messages.
      path: a directory with dataset_info.json and features.json.

    Raises:
      ConfigError: the directory holds no usable image-classification set.
    """

    def __init__(self, name: str, path: str):
        self.name, self.path = name, path
        for file in ("dataset_info.json", "features.json"):
            if not os.path.exists(os.path.join(path, file)):
                raise self._refuse(f"is not a prepared dataset: it has no {file}")
        with self._reading("cannot be opened"):
            info = self.builder.info
            features = dict(info.features.items())
            keys = info.supervised_keys or ("image", "label")
            stored = info.file_format.value
        if stored != "array_record":
            root = path.rpartition(f"{os.sep}{name}")[0]
            place = f" --data_dir={root}" if root not in ("", directory()) else ""
            raise self._refuse(
                f"contains {stored} files instead of array_record; convert them with "
                f"`python -m experiments.prepare {name}{place}`"
            )
        with self._reading("cannot be opened"):
            self._take_features(features, *keys[:2])

    def _take_features(
        self, features: dict[str, Any], image_key: str, label_key: str
    ) -> None:
        self.image_key, self.label_key = image_key, label_key
        image, label = features.get(image_key), features.get(label_key)
        if not isinstance(image, tfds.features.Image) or not isinstance(
            label, tfds.features.ClassLabel
        ):
            kinds = (f"{key} ({type(features[key]).__name__})" for key in features)
            raise self._refuse(
                "is not an image classification set: it needs an Image and a "
                f"ClassLabel, got {', '.join(sorted(kinds))}"
            )
        self.num_classes, self.channels = label.num_classes, image.shape[-1]
        self.sides = image.shape[:2]
        if self.num_classes > LARGEST_CLASSES:  # TFDS would make a name for each
            raise self._refuse(
                f"has {self.num_classes} classes, more than {LARGEST_CLASSES}"
            )
        self.class_names = tuple(label.names)
        if not 0 < self.num_classes == len(self.class_names):
            raise self._refuse(
                f"has {self.num_classes} classes, but {len(self.class_names)} names"
            )
        if image.np_dtype != np.uint8 or self.channels not in (1, 3):
            raise self._refuse(
                f"has {np.dtype(image.np_dtype)} images with {self.channels} "
                "channels; expected uint8 with 1 or 3"
            )

    def __getstate__(self) -> dict[str, Any]:
        """State without open files, which each worker opens for itself."""
        opened = ("builder", "_records")
        return {key: value for key, value in vars(self).items() if key not in opened}

    @functools.cached_property
    def builder(self) -> tfds.core.DatasetBuilder:
        """TFDS's reader of the set."""
        builder = tfds.builder_from_directory(self.path)
        others = [other.value for other in builder.info.alternative_file_formats]
        if "array_record" in others:
            builder.info.set_file_format(
                "array_record", override=True, override_if_initialized=True
            )
        return builder

    def count(self, split: str) -> int:
        """Examples of a split.

        Raises:
          ConfigError: no such split, or a slice that TFDS does not support.
        """
        source = self._source(split)
        with self._reading(f"split {split!r} cannot be read"):
            return len(source)

    def fetch(self, split: str, numbers: Sequence[int]) -> list[tuple[bytes, int]]:
        """Encoded pictures and labels of records of a split.

        Raises:
          ConfigError: a record is damaged, or has no picture or label.
        """
        source = self._source(split)
        try:
            records = source.__getitems__(list(numbers))
        except Exception:  # read one by one to find the faulty record
            records = [self._single(source, split, number) for number in numbers]
        found = [(record[self.image_key], record[self.label_key]) for record in records]
        for number, (encoded, label) in zip(numbers, found, strict=True):
            # array_record returns records missing from a truncated file as empty
            if not isinstance(encoded, bytes) or label is None:
                where = self.where(split, number)
                raise names.ConfigError(f"{where} is damaged: no image or no label")
        return found

    def where(self, split: str, number: int) -> str:
        """The file of an example, and its record number there."""
        for part in self._file_parts(split):
            if number < part.take:
                return f"{part.filename}, record {part.skip + number}"
            number -= part.take
        raise IndexError(number)

    def files(self, split: str) -> list[str]:
        """The record files of a split, and the description of their features."""
        features = os.path.join(self.path, "features.json")
        return [features, *(part.filename for part in self._file_parts(split))]

    def _file_parts(self, split: str) -> list[Any]:
        """The files of a split, and the range of records in each."""
        with self._reading(f"split {split!r} cannot be read"):
            return self.builder.info.splits[split].file_instructions

    def _source(self, split: str) -> Any:
        """The records of a split, with encoded pictures."""
        if split not in self._records:
            with self._reading("cannot be opened"):
                known = list(self.builder.info.splits)
            if re.split(r"[\[+]", split)[0] not in known:
                raise names.choices(f"split of dataset {self.name!r}", split, known)
            decoders = {self.image_key: tfds.decode.SkipDecoding()}
            with self._reading(f"split {split!r} cannot be read"):
                source = self.builder.as_data_source(split, decoders=decoders)
                self._check_counts(split)
            self._records[split] = source
        return self._records[split]

    def _check_counts(self, split: str) -> None:
        """Reject files whose number of records differs from dataset_info.json."""
        parts = self._file_parts(split)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            counts = pool.map(_count, [part.filename for part in parts])
            for part, count in zip(parts, counts, strict=True):
                if count != part.examples_in_shard:
                    raise self._refuse(
                        f"is damaged: {part.filename} has {count} records, but "
                        f"dataset_info.json declares {part.examples_in_shard}"
                    )

    @functools.cached_property
    def _records(self) -> dict[str, Any]:
        return {}

    def _single(self, source: Any, split: str, number: int) -> Any:
        try:
            return source[number]
        except Exception as error:
            where = self.where(split, number)
            raise names.ConfigError(
                f"{where} is damaged: {_first_line(error)}"
            ) from error

    @contextlib.contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Turn any error that TFDS raises on the set's files into one line."""
        try:
            yield
        except names.ConfigError:
            raise
        except Exception as error:  # TFDS raises many types on damaged files
            raise self._refuse(f"{what}: {_first_line(error)}") from error

    def _refuse(self, reason: str) -> names.ConfigError:
        return names.ConfigError(f"dataset {self.name!r}: {self.path!r} {reason}")


def open_set(
    name: str,
    data_dir: str = "",
    train_split: str = "train",
    test_split: str = "test",
    validation_size: int = 0,
    size: int = 0,
    damaged: pictures.Damaged = "refuse",
) -> OnDisk:
    """A prepared TFDS image-classification set.

    Args:
      name: as in `find`.
      data_dir: as in `directory`.
      train_split: TFDS split to train on ('train', 'train[:20%]').
      test_split: TFDS split to evaluate on.
      validation_size: 0, or the number of training examples that are held out
        and evaluated in place of ``test_split`` (see `open_parts`).
      size: for a set in memory with pictures of several sizes, the side to which
        their central squares are resized; 0 to keep pictures unchanged.
      damaged: for a set in memory, 'refuse' damaged pictures or 'accept' their
        decodable part (see `pictures.decode`).

    Returns:
      The dataset, not yet read.

    Raises:
      ConfigError: not prepared, not image classification, no such split.
    """
    reader = Prepared(name, find(name, data_dir))
    return open_parts(reader, train_split, test_split, validation_size, size, damaged)


def _first_line(error: Exception) -> str:
    """An error as one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _count(path: str) -> int:
    """Records of an array_record file; ConfigError names one that is unreadable."""
    try:
        os.stat(path)
        reader = ArrayRecordReader(path)
        try:
            return reader.num_records()
        finally:
            reader.close()
    except OSError as error:
        raise names.ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:
        raise names.ConfigError(f"{path} is damaged: {_first_line(error)}") from error
