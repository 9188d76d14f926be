"""Prepared TFDS directories read into memory, without TensorFlow.

A set is prepared when ``tfds.builder_from_directory`` can open it: a directory
``data_dir/name[/config]/version`` with dataset_info.json, features.json and
array_record files. Pillow decodes the pictures.
"""

import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from cnn_jax import names
from cnn_jax.data.dataset import Arrays, Dataset, hold_out

CHUNK = 4096  # records read at once
VERSION = re.compile(r"\d+\.\d+\.\d+")


def directory(data_dir: str = "") -> str:
    """The root of prepared data sets.

    Args:
      data_dir: a directory, or '' for TFDS's own default: ``TFDS_DATA_DIR`` of
        the environment, else ``~/tensorflow_datasets``.

    Returns:
      Its absolute path; it need not exist.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return os.path.abspath(os.path.expanduser(data_dir or default))


def available(data_dir: str = "") -> list[str]:
    """Names of the data sets prepared under ``data_dir``, sorted."""
    root = pathlib.Path(directory(data_dir))
    files = [*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]
    sets = {file.parent.parent for file in files if VERSION.fullmatch(file.parent.name)}
    return sorted(path.relative_to(root).as_posix() for path in sets)


def find(name: str, data_dir: str = "") -> str:
    """The directory of a prepared data set.

    Args:
      name: ``set`` or ``set/config``, of which the newest version is taken, or
        either with ``/version``.
      data_dir: as in `directory`.

    Returns:
      The directory that holds the set's dataset_info.json.

    Raises:
      ConfigError: nothing prepared there.
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
    raise names.ConfigError(
        f"unknown dataset {name!r}; choices: digits, those prepared under {root!r} "
        f"({listed}; `python -m experiments.prepare NAME` adds one of TFDS), "
        "package.module:function"
    )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An image-classification set on disk, opened and checked.

    Attributes:
      name: as in the config.
      path: its directory.
      builder: TFDS's own reader.
      image_key: the feature that holds the picture.
      label_key: the feature that holds the class.
      num_classes: classes that the label feature declares.
      channels: 1 (grey) or 3 (RGB).
    """

    name: str
    path: str
    builder: tfds.core.DatasetBuilder
    image_key: str
    label_key: str
    num_classes: int
    channels: int

    def records(self, split: str) -> Any:
        """The split's examples by number, their pictures still encoded.

        Raises:
          ConfigError: no such split, or one that TFDS cannot slice so.
        """
        known = list(self.builder.info.splits)
        if re.split(r"[\[+]", split)[0] not in known:
            raise names.choices(f"split of dataset {self.name!r}", split, known)
        decoders = {self.image_key: tfds.decode.SkipDecoding()}
        try:
            return self.builder.as_data_source(split, decoders=decoders)
        except (ValueError, AssertionError, FileNotFoundError) as error:
            raise names.ConfigError(
                f"dataset {self.name!r}: cannot read split {split!r} of "
                f"{self.path!r}: {_first_line(error)}"
            ) from error


def open_prepared(name: str, path: str) -> Prepared:
    """Open a prepared directory and check that it is image classification.

    Args:
      name: what the messages call it.
      path: a directory with dataset_info.json and features.json.

    Returns:
      The opened set.

    Raises:
      ConfigError: it holds something else.
    """

    def refuse(reason: str) -> names.ConfigError:
        return names.ConfigError(f"dataset {name!r}: {path!r} {reason}")

    for file in ("dataset_info.json", "features.json"):
        if not os.path.exists(os.path.join(path, file)):
            raise refuse(f"is not a prepared data set: it has no {file}")
    try:
        builder = tfds.builder_from_directory(path)
        features = dict(builder.info.features.items())
        keys = builder.info.supervised_keys or ("image", "label")
    except Exception as error:  # whatever TFDS makes of a damaged file
        raise refuse(f"cannot be opened: {_first_line(error)}") from error
    stored = builder.info.file_format.value
    if stored != "array_record":
        raise refuse(
            f"holds {stored} files; array_record is needed: `python -m "
            f"experiments.prepare {name}` writes it"
        )
    image_key, label_key = keys[0], keys[1]
    image = features.get(image_key)
    label = features.get(label_key)
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        kinds = (f"{key} ({type(features[key]).__name__})" for key in sorted(features))
        raise refuse(
            "is not image classification: it needs an Image and a ClassLabel, "
            f"and has {', '.join(kinds)}"
        )
    channels = image.shape[-1]
    if image.np_dtype != np.uint8 or channels not in (1, 3):
        raise refuse(
            f"has {np.dtype(image.np_dtype)} images of {channels} channels; "
            "uint8 of 1 or 3 is needed"
        )
    return Prepared(
        name, path, builder, image_key, label_key, label.num_classes, channels
    )


def load(
    name: str,
    data_dir: str = "",
    train_split: str = "train",
    test_split: str = "test",
    validation_size: int = 0,
) -> Dataset:
    """A prepared TFDS image-classification set, decoded into memory.

    Args:
      name: as in `find`.
      data_dir: as in `directory`.
      train_split: TFDS split to train on ('train', 'train[:20%]').
      test_split: TFDS split to evaluate on.
      validation_size: 0, or the number of training examples that `hold_out`
        sets apart; they are then evaluated in place of ``test_split``, which is
        not read at all.

    Returns:
      The data set in memory.

    Raises:
      ConfigError: not prepared, not image classification, no such split, images
        of several sizes, a label outside the classes.
    """
    opened = open_prepared(name, find(name, data_dir))
    train = read(opened, train_split)
    if validation_size:
        train, held = hold_out(train, validation_size)
        return Dataset(name, opened.num_classes, train, held, "validation")
    return Dataset(name, opened.num_classes, train, read(opened, test_split))


def read(opened: Prepared, split: str) -> Arrays:
    """Decode a whole split.

    Args:
      opened: the data set.
      split: a TFDS split.

    Returns:
      Its images and labels, in the order of the files.

    Raises:
      ConfigError: a record that cannot be decoded, or images of several sizes.
    """
    images, labels = None, []
    count = 0
    for index, record in enumerate(_each(opened.records(split))):
        where = f"dataset {opened.name!r}: {split} example {index}"
        try:
            image = decode(record[opened.image_key], opened.channels)
        except (OSError, ValueError) as error:
            raise names.ConfigError(f"{where} is no picture: {error}") from error
        if images is None:
            count = len(opened.records(split))
            images = np.empty((count, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise names.ConfigError(
                f"{where} is {image.shape}, others {images.shape[1:]}: only images "
                "of one size fit in one array"
            )
        images[index] = image
        labels.append(record[opened.label_key])
    if images is None:
        raise names.ConfigError(f"dataset {opened.name!r}: {split} is empty")
    return Arrays(images, np.array(labels, np.int32))


def decode(encoded: bytes, channels: int) -> np.ndarray:
    """Pixels of a PNG or JPEG picture, grey or RGB as ``channels`` asks.

    Args:
      encoded: the file's bytes.
      channels: 1 or 3; a picture of another kind is converted.

    Returns:
      uint8 (height, width, channels).

    Raises:
      OSError: no picture, or a damaged one.
    """
    with Image.open(io.BytesIO(encoded)) as picture:
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    return pixels[..., None] if channels == 1 else pixels


def _each(source: Sequence) -> Iterator[Any]:
    """Every record in order, read in chunks (seven times as fast as singly)."""
    for start in range(0, len(source), CHUNK):
        yield from source.__getitems__(
            list(range(start, min(start + CHUNK, len(source))))
        )


def _first_line(error: Exception) -> str:
    """An error as one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
