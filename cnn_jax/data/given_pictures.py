"""User-supplied picture files, as input images of a trained network."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnn_jax import names
from cnn_jax.data import pictures
from cnn_jax.data.folder import Folder


def read(
    files: Sequence[str | os.PathLike[str]],
    shape: tuple[int, int, int],
    dataset: Mapping[str, Any],
) -> np.ndarray:
    """Read pictures with the preprocessing of a run's test set.

    Args:
      files: paths of the pictures.
      shape: height, width and channels of the network's images.
      dataset: the config section. With a stream, its evaluation transform applies
        (the central crop if it has several views); otherwise the central square is
        resized.

    Returns:
      uint8 (n, height, width, channels).

    Raises:
      ConfigError: a file cannot be read or is no picture, or its size differs from
        that of a network for non-square images.
    """
    made = [_read(os.fspath(file), shape, dataset.get("stream", {})) for file in files]
    return np.stack(made) if made else np.zeros((0, *shape), np.uint8)


def classes(path: str, known: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """List the pictures in a folder of class folders.

    Args:
      path: the folder, whose subfolders are named after classes.
      known: names of the network's classes.

    Returns:
      The files, and their classes (n,).

    Raises:
      ConfigError: no such folder, or a class that the network does not know.
    """
    folder = Folder(path, "")
    unknown = [name for name in folder.class_names if name not in known]
    if unknown:
        raise names.choices(f"class of folder {path!r}", unknown[0], list(known))
    files = folder.files("")
    numbers = [known.index(name) for name in folder.class_names]
    return files, np.array(numbers)[folder.labels("")]


def _read(
    path: str, shape: tuple[int, int, int], stream: Mapping[str, Any]
) -> np.ndarray:
    height, width, channels = shape
    try:
        with open(path, "rb") as file:
            encoded = file.read()
        if stream:
            from cnn_jax.data import regions, transforms

            section = dict(stream["test"])
            if section["name"] == "ten_crop":
                section["name"] = "center"
            transform = transforms.build("test", section)
            picture = regions.Picture(encoded, channels, "accept")
            return transform(picture, np.random.default_rng(0))
        pixels = pictures.decode(encoded, channels, "accept")
    except OSError as error:
        raise names.ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except pictures.PictureError as error:
        raise names.ConfigError(f"{path}: {error}") from error
    if pixels.shape == shape:
        return pixels
    if height != width:
        raise names.ConfigError(
            f"{path} has {pixels.shape[0]}x{pixels.shape[1]} pixels, but the network "
            f"needs {height}x{width}; resize it"
        )
    return pictures.central_square(pixels, height)
