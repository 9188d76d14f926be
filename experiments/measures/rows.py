"""The row of a table, as a measure makes it."""

from typing import Any

Row = dict[str, Any]
