"""Tables: CSV files that are replaced in one go, and tables on a terminal."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas
from rich import box
from rich.console import Console
from rich.table import Table

from cnn_jax.train.checkpoint import write_atomically


def write_csv(
    path: pathlib.Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write a table.

    Args:
      path: the file.
      columns: its header, keys of every row.
      rows: its lines.
    """
    table = pandas.DataFrame(rows, columns=list(columns))
    write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode())


def show(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table.

    Args:
      title: above it; '' for none.
      rows: its lines, all of the same keys, which are the header. What looks like a
        number stands to the right.
    """
    table = Table(title=title or None, box=box.SIMPLE_HEAD)
    for key in rows[0]:
        numbers = any(row[key][:1].isdigit() for row in rows)
        table.add_column(key, justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    if not console.is_terminal:  # in a file or a pipe, lines are never wrapped
        console = Console(width=200)
    console.print(table)
