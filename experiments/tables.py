"""Tables on disk: CSV files that are replaced in one go."""

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.train.checkpoint import write_atomically


def write_csv(
    path: pathlib.Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write a table.

    Args:
      path: the file.
      columns: its header; every row has these keys and no others.
      rows: its lines.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
