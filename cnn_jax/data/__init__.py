"""Datasets: from files on disk to batches of uint8 images.

A config section ``dataset = dict(name=..., ...)`` selects one of:

  - a name of `TABLE`: 'digits' (needs no download), 'folder' (class folders of
    pictures), 'digit_strings' (lines composed from another set's digits);
  - any image-classification set that TFDS prepared under ``data_dir``;
  - ``package.module:function``.

A function of `TABLE` or of a module is called with the section's other keys. It returns
NumPy arrays (see `cnn_jax.data.given`), a `Dataset` of them, an `OnDisk`, or a function
from (process_index, process_count) to a `cnn_jax.data.sources.Source`.

The other keys are those of `prepared.open_set`, and a section ``stream`` for sets
that do not fit in memory (see `cnn_jax.data.streams`).
"""

import functools
from collections.abc import Callable
from typing import Any

from cnn_jax import names
from cnn_jax.data import digits, folder, given, prepared, string_source
from cnn_jax.data.dataset import Arrays, Dataset
from cnn_jax.data.disk import OnDisk

__all__ = ["TABLE", "Arrays", "Dataset", "OnDisk", "load", "open_set"]

TABLE: dict[str, Callable[..., Any]] = {
    "digits": digits.open_set,
    "folder": folder.open_set,
    "digit_strings": string_source.load,
}


def open_set(name: str, **fields: Any) -> Any:
    """Open the dataset that a config section names, without decoding it.

    Args:
      name: see the module's description.
      **fields: the section's other keys, without ``stream``.

    Returns:
      An `OnDisk`, or the return value of a plugin.

    Raises:
      ConfigError: unknown name or field, or data that cannot be used.
    """
    if not isinstance(name, str):
        raise names.ConfigError(f"dataset must be a name (str), got {name!r}")
    section = {"name": name, **fields}
    # a set composed from another one receives the function that opens it
    supplied = {"open_digits": load}
    table = dict(TABLE)
    if ":" not in name and name not in table:
        prepared.find(name, fields.get("data_dir", ""))  # or reports the choices
        table[name] = functools.partial(prepared.open_set, name)
    return given.open_set(section, table, **supplied)


def load(name: str, **fields: Any) -> Dataset:
    """Load the dataset that a config section names into memory.

    Args:
      name: as in `open_set`.
      **fields: as in `open_set`.

    Returns:
      The dataset.

    Raises:
      ConfigError: as `open_set`, images of several sizes, or a source that makes
        its own batches.
    """
    found = open_set(name, **fields)
    if isinstance(found, OnDisk):
        return found.in_memory()
    if callable(found) or hasattr(found, "train_batches"):
        raise names.ConfigError(
            f"dataset {name!r} generates its own batches and has no images to read"
        )
    if not isinstance(found, Dataset):
        raise given.no_data(name, found)
    return found
