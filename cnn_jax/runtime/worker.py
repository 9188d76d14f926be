"""The set-up of a worker process, and its end with its parent."""

import multiprocessing
import os
import threading
from collections.abc import Sequence

from cnn_jax.runtime import backend, compilation_cache, heap


def prepare(cores: Sequence[int], keep_compiled: bool) -> None:
    """Apply the set-up of a command to a process that computes for it.

    Args:
      cores: this process's share of the machine: CPU cores to pin it to, if the
        system supports it; () if it has the machine for itself.
      keep_compiled: whether to enable the compilation cache.
    """
    if cores:
        backend.share_memory()
    if cores and hasattr(os, "sched_setaffinity"):  # not on macOS
        os.sched_setaffinity(0, cores)
        backend.choose_library()
    heap.keep()
    if keep_compiled:
        compilation_cache.enable()


def end_with_parent() -> None:
    """Make this child process end with its parent, even one that is killed.

    A thread waits for the parent, so the child also ends while it computes.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
