"""The memory of this process, and a check of what fits in it."""

import os
import pathlib

from cnn_jax import names

CGROUP = "/sys/fs/cgroup/memory.max"


def total() -> int:
    """Maximum bytes of memory that this process may use; 0 if unknown."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on every system
        return 0
    try:  # the limit of a container, a number or 'max'
        return min(found, int(pathlib.Path(CGROUP).read_text()))
    except (OSError, ValueError):
        return found


def check(needed: int, what: str, advice: str) -> None:
    """Reject data that cannot fit in memory, before allocating it.

    Args:
      needed: bytes needed.
      what: what needs them, for the message.
      advice: advice to the user, for the message.

    Raises:
      ConfigError: less memory is available.
    """
    there = total()
    if 0 < there < needed:
        raise names.ConfigError(
            f"{what} need {needed / 1e9:,.1f} GB of memory, but "
            f"{there / 1e9:,.1f} GB are available; {advice}"
        )
