"""Tables printed to a terminal."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table.

    Args:
      title: heading above the table; '' for none.
      rows: rows with the same keys, which form the header. Columns of numbers are
        right-aligned.
    """
    table = Table(title=escape(title) or None, box=box.SIMPLE_HEAD)
    for key in rows[0]:
        numbers = any(row[key][:1].isdigit() for row in rows)
        table.add_column(escape(key), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*map(escape, row.values()))
    console = Console()
    if not console.is_terminal:  # lines in a file or a pipe are not wrapped
        console = Console(width=200)
    console.print(table)
