"""Landscapes on disk.

A file has the directions and the values, so that a landscape can be reproduced, or
extended along the same directions to a finer grid or more images.
"""

import dataclasses
import hashlib
import io
import os
import pathlib
import zipfile
from typing import Any

import flax.traverse_util
import numpy as np

from cnn_jax.names import ConfigError
from cnn_jax.training.files import write_atomically

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Landscape:
    """Values of an objective along directions, with the data to reproduce them.

    Attributes:
      seed: of the directions.
      axes: coordinates along each direction.
      directions: trees like the parameters.
      values: arrays of the grid's shape, by name.
      centre: SHA-256 of the parameters at the origin, in hexadecimal.
    """

    seed: int
    axes: tuple[np.ndarray, ...]
    directions: tuple[Any, ...]
    values: dict[str, np.ndarray]
    centre: str


def digest(params: Any) -> str:
    """SHA-256 of parameters: names, types, shapes and values, in hexadecimal."""
    found = hashlib.sha256()
    for name, leaf in sorted(_flat(params).items()):
        found.update(f"{name}{leaf.dtype.str}{leaf.shape}".encode())
        found.update(np.ascontiguousarray(leaf).data)
    return found.hexdigest()


def save(landscape: Landscape, path: str | os.PathLike[str]) -> None:
    """Write a landscape, with its directions, to one ``.npz`` file, atomically."""
    arrays = {
        "format": np.array(FORMAT),
        "seed": np.array(landscape.seed),
        "centre": np.array(landscape.centre),
        **{f"axis/{n}": axis for n, axis in enumerate(landscape.axes)},
        **{f"value/{name}": value for name, value in landscape.values.items()},
    }
    for number, direction in enumerate(landscape.directions):
        for name, leaf in _flat(direction).items():
            arrays[f"direction/{number}/{name}"] = leaf
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # no option names
    write_atomically(pathlib.Path(path), content.getvalue())


def load(path: str | os.PathLike[str]) -> Landscape:
    """Read a landscape that `save` wrote.

    Args:
      path: the file.

    Returns:
      The landscape; `evaluate` with its directions reproduces its values.

    Raises:
      ConfigError: no such file, or not a landscape of this version's format.
    """
    try:
        with np.load(pathlib.Path(path)) as file:
            arrays = dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} cannot be read as a landscape: {error}") from None
    if int(arrays.get("format", 0)) != FORMAT:
        raise ConfigError(f"{path} is not a landscape of format {FORMAT}")

    def under(prefix: str) -> dict[str, np.ndarray]:
        names = (name for name in arrays if name.startswith(prefix))
        return {name.removeprefix(prefix): arrays[name] for name in names}

    count = len(under("axis/"))
    return Landscape(
        seed=int(arrays["seed"]),
        axes=tuple(arrays[f"axis/{number}"] for number in range(count)),
        directions=tuple(
            flax.traverse_util.unflatten_dict(under(f"direction/{number}/"), sep="/")
            for number in range(count)
        ),
        values=under("value/"),
        centre=str(arrays["centre"]),
    )


def _flat(tree: Any) -> dict[str, np.ndarray]:
    flat = flax.traverse_util.flatten_dict(tree, sep="/")
    return {name: np.asarray(leaf) for name, leaf in flat.items()}
