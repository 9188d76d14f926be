"""Freed memory is reused without a page fault."""

import os
import subprocess
import sys

from cnn_jax.runtime import heap
from tests.needs import needs

FAULTS = """
import ctypes, resource, sys
import experiments  # as every command does, before jax
print("jax" not in sys.modules)
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.memset.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    place = libc.malloc(2**26)
    libc.memset(place, 1, 2**26)
    libc.free(place)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def second_use(**environment):
    run = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    early, faults = run.stdout.split()
    assert early == "True"
    return int(faults)


@needs("glibc")
def test_memory_is_kept_unless_switched_off():
    assert second_use(CNN_JAX_KEEP_HEAP="true") < 8
    assert second_use(CNN_JAX_KEEP_HEAP="false") > 16  # 64 MiB are at least 32 pages


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not heap.keep({})
