"""Data sets: TFDS in, uint8 arrays out, and what happens to them on the device.

A config section ``dataset = dict(name=..., data_dir=..., ...)`` names one of:

  - a name of `TABLE` ('digits' needs no network, 'digit_strings' composes lines
    of digits from those of another data set);
  - any image-classification set prepared under ``data_dir`` by TFDS;
  - ``package.module:function``, whose keyword arguments are the section's
    other keys and which returns a `Dataset`, or, for a stream, a function from
    (process_index, process_count) to its `cnn_jax.data.sources.Source`.
"""

import functools
from typing import Any

from cnn_jax import names
from cnn_jax.data import digits, prepared, string_source
from cnn_jax.data.dataset import Arrays, Dataset, hold_out

__all__ = ["TABLE", "Arrays", "Dataset", "hold_out", "load"]

TABLE = {"digits": digits.load, "digit_strings": string_source.load}


def load(name: str, **fields: Any) -> Any:
    """The data set that a config section describes, in memory.

    Args:
      name: see the module's description.
      **fields: the section's other keys; for a prepared set those of
        `prepared.load` (data_dir, train_split, test_split, validation_size).

    Returns:
      The data set; of a stream, what opens it (see the module's description).

    Raises:
      ConfigError: unknown name or field, or data that cannot be used.
    """
    table = dict(TABLE)
    if name not in table and ":" not in name:
        prepared.find(name, fields.get("data_dir", ""))  # or says what is there
        table[name] = functools.partial(prepared.load, name)
    return names.build("dataset", {"name": name, **fields}, table)
