"""Loads oneDNN and reports which convolutions it can compute.

It consists of two files: Intel's library, from the distribution onednn-cpu-gomp, and
`_onednn`, which the installation of this package builds from `onednn.cc` and
`pooling.cc` if a compiler is available. `CNN_JAX_ONEDNN=false` disables both.
"""

import ctypes
import functools
import importlib.metadata
import os
import pathlib
import platform
import sys

import jax

# Incremented with every change of the compiled files, because `git pull` does not
# recompile them.
VERSION = 6
SWITCH = "CNN_JAX_ONEDNN"
DISTRIBUTION = "onednn-cpu-gomp"
# The functions that the compiled files export, under the names registered with XLA.
TARGETS = tuple(
    f"cnn_jax_{name}" for name in ("maps", "images", "kernel", "largest", "route")
)


def switched_off() -> bool:
    """Whether the user disabled oneDNN in favour of XLA's convolutions."""
    return os.environ.get(SWITCH, "true").lower() in ("false", "0", "no", "off")


def library() -> str:
    """The library that computes convolutions in this process: 'onednn' or 'xla'."""
    if jax.default_backend() != "cpu" or switched_off() or load() is None:
        return "xla"
    return "onednn"


def advice() -> str:
    """One line for users whose CPU could train faster; '' if not applicable."""
    here = sys.platform == "linux" and platform.machine() == "x86_64"
    if not here or jax.default_backend() != "cpu" or switched_off() or load():
        return ""
    return (
        "note: using XLA's convolutions, which are slower on this CPU; to use oneDNN, "
        "install a C++ compiler (g++) and run pip install again"
    )


@functools.cache
def load() -> ctypes.CDLL | None:
    """Load the compiled file and register it with XLA; None if missing or outdated."""
    file = pathlib.Path(__file__).with_name("_onednn.abi3.so")
    if not file.exists():
        return None
    try:
        # Load Intel's library by path first; `_onednn` then resolves it by name.
        ctypes.CDLL(_path_of_onednn())
        loaded = ctypes.CDLL(str(file))
        if ctypes.c_int.in_dll(loaded, "cnn_jax_version").value != VERSION:
            return None
    except OSError:  # no libgomp, no such file, another system's
        return None
    except ValueError:  # compiled before versions were recorded
        return None
    for name in TARGETS:
        handler = jax.ffi.pycapsule(getattr(loaded, name))
        jax.ffi.register_ffi_target(name, handler, platform="cpu")
    return loaded


@functools.cache
def computes(numbers: tuple[int, ...]) -> bool:
    """Whether oneDNN supports a convolution and both of its derivatives.

    Args:
      numbers: the arguments of `cnn_jax_has` in `onednn.cc`.

    Raises:
      MemoryError: there is no memory, or no thread, to find out.
    """
    loaded = load()
    if loaded is None:
        return False
    answer = loaded.cnn_jax_has((ctypes.c_int64 * len(numbers))(*numbers))
    if answer < 0:  # 'no' would stay in the cache, and change the results of a run
        raise MemoryError("oneDNN: no memory, or no thread, to plan a convolution")
    return answer == 1


def _path_of_onednn() -> str:
    """Path of the library's file.

    Raises:
      OSError: it is not installed.
    """
    try:
        files = importlib.metadata.files(DISTRIBUTION) or ()
    except importlib.metadata.PackageNotFoundError as error:
        raise OSError(f"{DISTRIBUTION} is not installed") from error
    for file in files:
        if file.name == "libdnnl.so.3":
            return str(pathlib.Path(file.locate()).resolve())
    raise OSError(f"{DISTRIBUTION} has no libdnnl.so.3")
