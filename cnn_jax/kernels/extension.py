"""Loads oneDNN and reports which convolutions it can compute.

It consists of two files: Intel's library, from the distribution onednn-cpu-gomp, and
`_onednn`, which the installation of this package builds from `onednn.cc` and
`pooling.cc` if a compiler is available. `CNN_JAX_ONEDNN=false` disables both.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import sys

import jax

from cnn_jax.kernels import sources

MODULE = "cnn_jax.kernels._onednn"
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
    if not here or jax.default_backend() != "cpu" or switched_off():
        return ""
    loaded, reason = attempt()
    if loaded is not None:
        return ""
    return (
        "note: using XLA's convolutions, which are slower on this CPU, because the "
        f"extension for oneDNN {reason}; with a C++ compiler (g++), "
        "`pip install -v -e .` builds it and shows the compiler's messages"
    )


def compiled_file() -> pathlib.Path | None:
    """The compiled file, whatever this interpreter's suffix is; None if missing."""
    found = importlib.util.find_spec(MODULE)
    return None if found is None or not found.origin else pathlib.Path(found.origin)


def load() -> ctypes.CDLL | None:
    """The compiled file, loaded and registered with XLA; None if it is not usable."""
    return attempt()[0]


@functools.cache
def attempt() -> tuple[ctypes.CDLL | None, str]:
    """Load the compiled file and register its functions with XLA.

    Returns:
      The file and '', or None and why it is not used, as the end of a sentence.
    """
    file = compiled_file()
    if file is None:
        return None, "is not compiled"
    try:
        # Load Intel's library by path first; `_onednn` then resolves it by name.
        ctypes.CDLL(_path_of_onednn())
        loaded = ctypes.CDLL(str(file))
    except OSError as error:  # no libgomp, no such file, another system's
        return None, f"cannot be loaded ({error})"
    here = sources.digest(pathlib.Path(__file__).parent)
    if here not in (None, _digest_in(loaded)):  # None: installed without the sources
        return None, "was compiled from other C++ files"
    for name in TARGETS:
        handler = jax.ffi.pycapsule(getattr(loaded, name))
        jax.ffi.register_ffi_target(name, handler, platform="cpu")
    return loaded, ""


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


def _digest_in(loaded: ctypes.CDLL) -> int | None:
    """What identifies the C++ files it was compiled from; None in very old ones."""
    try:
        return ctypes.c_uint64.in_dll(loaded, sources.SYMBOL).value
    except ValueError:
        return None


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
