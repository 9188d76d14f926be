"""How much memory there is, and what does not fit in it."""

import os
import pathlib

from cnn_jax import names

CGROUP = "/sys/fs/cgroup/memory.max"


def total() -> int:
    """Bytes of memory that this process may use at most; 0 where unknown."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on every system
        return 0
    try:  # a container's own limit, a number or 'max'
        return min(found, int(pathlib.Path(CGROUP).read_text()))
    except (OSError, ValueError):
        return found


def check(needed: int, what: str, advice: str) -> None:
    """Refuse what cannot fit in memory, before it is asked for.

    Args:
      needed: bytes.
      what: needs them, for the message.
      advice: what to do.

    Raises:
      ConfigError: there is less.
    """
    there = total()
    if 0 < there < needed:
        raise names.ConfigError(
            f"{what} needs {needed / 1e9:,.1f} GB of memory; there are "
            f"{there / 1e9:,.1f} GB: {advice}"
        )
