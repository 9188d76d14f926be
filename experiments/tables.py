"""Tables on a terminal."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table


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
