"""The process's heap, kept from step to step on Linux.

A training step on CPU takes its temporary arrays (0.3 GB for ResNet-20 at 32x32,
1.1 GB for ResNet-56) from the C library and gives them back when it ends. glibc
maps memory of that size from the kernel and unmaps it every time, so each step
begins with a page fault, and a page to be zeroed, for every 4 KiB. Told to keep
what it has, it hands the same pages out again.

The price: memory that a process once needed stays with it until it ends.
"""

import ctypes
import os
import sys
from collections.abc import Mapping

SWITCH = "CNN_JAX_KEEP_HEAP"
# glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep(environment: Mapping[str, str] = os.environ) -> bool:
    """From here on, keep memory that is freed for later use.

    The commands do this when they start; a program of your own may call it before
    jax's backend and other threads start (those that run already have a heap of
    their own, from which large arrays then come dearer than before).
    ``CNN_JAX_KEEP_HEAP=false`` switches it off, and elsewhere than under glibc
    (macOS, Windows, musl) it does nothing.

    Args:
      environment: of this process, unless another is given.

    Returns:
      Whether the heap is kept.
    """
    if environment.get(SWITCH, "true").lower() in ("false", "0", "no", "off"):
        return False
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 musl has a mallopt that does nothing
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    settings = {
        _ARENA_MAX: 1,  # one heap for all threads, else each keeps its own
        _MMAP_MAX: 0,  # large arrays come from the heap too
        _TRIM_THRESHOLD: -1,  # its end is never given back
        _TOP_PAD: 2**26,  # and grows by 64 MiB at a time
    }
    return all(mallopt(name, value) for name, value in settings.items())
