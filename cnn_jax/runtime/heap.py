"""glibc settings that keep freed memory in the process (Linux).

A train step on CPU allocates its temporary arrays (0.3 GB for ResNet-20 at 32x32,
1.1 GB for ResNet-56) from the C library and frees them when it ends. By default glibc
maps such large blocks from the kernel and unmaps them every time, so each step incurs
a page fault and zeroes a page for every 4 KiB. With these settings glibc reuses the
same pages.

The cost: the process holds its peak memory until it ends.
"""

import ctypes
import os
import sys
from collections.abc import Mapping

SWITCH = "CNN_JAX_KEEP_HEAP"
# glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep(environment: Mapping[str, str] = os.environ) -> bool:
    """Keep freed memory in the process for reuse.

    The commands call this when they start. Other programs may call it before jax's
    backend and other threads start: threads that already run have their own heaps,
    where large allocations then become slower. ``CNN_JAX_KEEP_HEAP=false`` disables
    it. Without glibc (macOS, Windows, musl) it does nothing.

    Args:
      environment: the environment to read; by default that of this process.

    Returns:
      Whether freed memory is kept.
    """
    if environment.get(SWITCH, "true").lower() in ("false", "0", "no", "off"):
        return False
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 musl's mallopt does nothing
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    settings = {
        _ARENA_MAX: 1,  # one heap for all threads
        _MMAP_MAX: 0,  # allocate large arrays from the heap too
        _TRIM_THRESHOLD: -1,  # never return the top of the heap to the kernel
        _TOP_PAD: 2**26,  # grow the heap by 64 MiB at a time
    }
    return all(mallopt(name, value) for name, value in settings.items())
