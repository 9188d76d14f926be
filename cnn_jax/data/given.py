"""Datasets from functions, usually as NumPy arrays.

    def shapes(split):                    # 'train' or 'test'
        return images, labels, names      # uint8 (n, h, w, c), (n,), one per class

If ``split`` is not a required argument, or if the config sets it, the function returns
one set of examples, of which ``validation_size`` (in the config) are held out for
evaluation. The arrays are checked like any other set. A function may also return a
`Dataset`, an `OnDisk` or a source.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_jax import names
from cnn_jax.data.dataset import Arrays, Dataset, held_out

FORM = "(images, labels, names)"


def open_set(
    section: Mapping[str, Any], table: Mapping[str, Any], **supplied: Any
) -> Any:
    """Open the dataset of a function.

    Args:
      section: config section with ``name``, the function's keyword arguments and, if
        it returns the arrays of one set, ``validation_size``.
      table: functions by name; others are ``package.module:function``.
      **supplied: arguments that the program adds, as in `names.build`.

    Returns:
      A `Dataset` of the arrays, or the function's return value.

    Raises:
      ConfigError: no such function, fields that it does not accept, or arrays that
        do not form a dataset.
    """
    name, fields = section["name"], dict(section)
    accepted = names.parameters(names.resolve("dataset", name, table))
    held = 0
    if "validation_size" not in accepted:
        held = fields.pop("validation_size", 0)
        if not names.has_type(held, int):
            raise names.ConfigError(
                f"dataset {name!r}: validation_size must be int, got {held!r}"
            )
    split = accepted.get("split")
    required = split is not None and split.default is inspect.Parameter.empty
    by_split = required and "split" not in fields

    def call(part: str) -> Any:
        wanted = {"split": part} if by_split else {}
        try:
            return names.build("dataset", fields, table, **supplied, **wanted)
        except names.ConfigError as error:
            if name in table or name in str(error):
                raise
            raise names.ConfigError(f"dataset {name!r}: {error}") from error

    found = call("train")
    if not isinstance(found, tuple | list):
        if held:
            kind = f"field of dataset {name!r}"
            raise names.choices(kind, "validation_size", sorted(accepted))
        return found
    arrays, classes = _arrays(name, "train", found)
    if by_split and not held:
        test, others = _arrays(name, "test", call("test"))
        if others != classes:
            raise names.ConfigError(
                f"dataset {name!r}: the class names of train are "
                f"{names.few(classes)}, but those of test {names.few(others)}"
            )
        return Dataset(name, len(classes), arrays, test, class_names=classes)
    if not held:
        other = (
            "leave config.dataset.split out"
            if "split" in fields
            else "give the function an argument `split` ('train' or 'test')"
        )
        raise names.ConfigError(
            f"dataset {name!r} returns a single set of {len(arrays)} examples: hold "
            f"some out with config.dataset.validation_size, or {other}"
        )
    mask = held_out(len(arrays), held)
    parts = arrays.part(np.flatnonzero(~mask)), arrays.part(np.flatnonzero(mask))
    return Dataset(name, len(classes), *parts, "validation", class_names=classes)


def no_data(name: str, found: Any) -> names.ConfigError:
    """The error for a function whose return value is no dataset."""
    return names.ConfigError(
        f"dataset {name!r} must return arrays {FORM}, a Dataset, an OnDisk or a "
        f"Source (see cnn_jax.data), got {type(found).__name__}"
    )


def _arrays(name: str, split: str, found: Any) -> tuple[Arrays, tuple[str, ...]]:
    """Check the images, labels and names that a function returned."""
    if not isinstance(found, tuple | list) or len(found) != 3:
        size = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        raise names.ConfigError(
            f"dataset {name!r} must return {FORM}, got {type(found).__name__}{size}"
        )
    images, labels, classes = found
    if isinstance(classes, str) or not np.iterable(classes):
        raise names.ConfigError(
            f"dataset {name!r}: names must be a list of class names, got {classes!r}"
        )
    classes = tuple(map(str, classes))
    if len(set(classes)) < len(classes):
        raise names.ConfigError(
            f"dataset {name!r}: names must be one per class, got {names.few(classes)}"
        )
    try:
        return Arrays(images, labels), classes
    except names.ConfigError as error:
        raise names.ConfigError(f"dataset {name!r}, {split}: {error}") from error
