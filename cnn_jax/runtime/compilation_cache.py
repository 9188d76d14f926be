"""Compiled programs kept on disk, so that a machine compiles each of them once.

jax finds a program by its text, its flags and the versions of all that compiled it.
XLA's CPU compiler also looks at the number of cores (it splits loops among them)
and at the instructions that there are; these stand in the directory's name, so
that a home directory may be shared by different machines.

A program that is found is the one that was compiled, so results do not depend on it.
"""

import contextlib
import hashlib
import importlib
import os
import pathlib
import platform
import warnings
import zlib
from collections.abc import Callable, Mapping

import jax

from cnn_jax.runtime import backend

# Bytes that are kept: the newest programs of one kind of machine.
LIMIT = 2**30
# How files begin that jax compresses with zstandard, where Python has it.
ZSTANDARD = b"\x28\xb5\x2f\xfd"


def enable(environment: Mapping[str, str] = os.environ) -> pathlib.Path | None:
    """Keep compiled programs, from here on, in the user's cache directory.

    That is ``cnn_jax/xla`` in XDG_CACHE_HOME, by default in ~/.cache. What jax's
    own variables say goes first: JAX_COMPILATION_CACHE_DIR names another place,
    JAX_ENABLE_COMPILATION_CACHE=false keeps nothing. Where the directory cannot be
    written, programs are compiled every time, as without it.

    Args:
      environment: of this process, unless another is given.

    Returns:
      The directory; None where it is not this function that chose one.
    """
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        return None
    if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return None
    try:
        directory = place(environment)
        directory.mkdir(parents=True, exist_ok=True)
        sweep(directory)
    except (OSError, RuntimeError):  # no right, no room, no home
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # A full disk, or an entry that another process is just writing: jax compiles.
    warnings.filterwarnings(
        "ignore", "Error (reading|writing) persistent compilation cache entry"
    )
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in environment:
        # A run has about a hundred small programs beside its large one.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return directory


def enabled() -> bool:
    """Whether compiled programs are kept, here or where the user said."""
    return bool(jax.config.jax_compilation_cache_dir)  # type: ignore[attr-defined]


def place(environment: Mapping[str, str]) -> pathlib.Path:
    """Where programs for this process's machine and cores are kept.

    Raises:
      RuntimeError: the user has no home directory.
    """
    base = pathlib.Path(environment.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the standard says to ignore it then
        base = pathlib.Path.home() / ".cache"
    return base / "cnn_jax" / "xla" / f"{_machine()}-{len(backend.cores())}"


def sweep(directory: pathlib.Path, limit: int = LIMIT) -> None:
    """Remove entries that are damaged, and the oldest past ``limit`` bytes.

    A process that is killed, or a full disk, leaves a part of an entry. jax would
    compile again, every time, and warn; it never replaces an entry.

    Args:
      directory: of compiled programs.
      limit: bytes that may stay.

    Raises:
      OSError: the directory cannot be written.
    """
    mark = directory / "swept"
    before = mark.stat().st_mtime if mark.exists() else 0.0
    mark.touch()
    entries = []
    for path in directory.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process sweeps too
            entries.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for changed, size, path in sorted(entries, reverse=True):
        total += size
        with contextlib.suppress(FileNotFoundError):
            if total > limit or (changed >= before and not _whole(path)):
                path.unlink()


def _whole(path: pathlib.Path) -> bool:
    """Whether an entry can be decompressed to its end."""
    content = path.read_bytes()
    decompress: Callable[[bytes], bytes] = zlib.decompress
    if content.startswith(ZSTANDARD):
        try:
            decompress = importlib.import_module("compression.zstd").decompress
        except ImportError:
            return True  # written by Python 3.14; an older one would not read it
    try:
        decompress(content)
    except Exception:  # each library has its own
        return False
    return True


def _machine() -> str:
    """The processor's kind and instructions, short enough for a file's name."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = [platform.processor()]
    kinds = ("model name", "flags", "Features", "CPU part")
    told = sorted({line for line in lines if line.startswith(kinds)}) or lines[:1]
    digest = hashlib.sha256("\n".join(told).encode()).hexdigest()
    return f"{platform.machine() or 'unknown'}-{digest[:8]}"
