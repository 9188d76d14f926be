"""The compilation cache on disk: a machine compiles each program once.

jax identifies a program by its text, its flags and the versions of the compilers.
XLA's CPU compiler also depends on the number of cores, over which it splits loops,
and on the instruction set. The directory name contains both, so that different
machines can share a home directory.

A cached program is the one that was compiled, so the cache does not affect results.
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

# Size limit in bytes per kind of machine; the oldest programs are removed first.
LIMIT = 2**30
# Magic number of files that jax compresses with zstandard, if Python (3.14) or the
# package of that name has it.
ZSTANDARD = b"\x28\xb5\x2f\xfd"


def enable(environment: Mapping[str, str] = os.environ) -> pathlib.Path | None:
    """Enable the compilation cache in the user's cache directory.

    The directory is ``cnn_jax/xla`` in XDG_CACHE_HOME, by default ~/.cache. jax's own
    variables take precedence: JAX_COMPILATION_CACHE_DIR names another directory, and
    JAX_ENABLE_COMPILATION_CACHE=false disables the cache. If the directory is not
    writable, there is no cache.

    Args:
      environment: the environment to read; by default that of this process.

    Returns:
      The directory, or None if this function did not set one.
    """
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        return None
    if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return None
    try:
        directory = place(environment)
        directory.mkdir(parents=True, exist_ok=True)
        sweep(directory)
    except (OSError, RuntimeError):  # no permission, no space, no home directory
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # If the disk is full or another process is writing the entry, jax compiles.
    warnings.filterwarnings(
        "ignore", "Error (reading|writing) persistent compilation cache entry"
    )
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in environment:
        # Besides its large program, a run has about a hundred small ones.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return directory


def enabled() -> bool:
    """Whether a compilation cache is enabled, by `enable` or by the user."""
    return bool(jax.config.jax_compilation_cache_dir)  # type: ignore[attr-defined]


def place(environment: Mapping[str, str]) -> pathlib.Path:
    """The cache directory for this machine and this process's number of cores.

    Raises:
      RuntimeError: the user has no home directory.
    """
    base = pathlib.Path(environment.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the XDG standard says to ignore relative paths
        base = pathlib.Path.home() / ".cache"
    return base / "cnn_jax" / "xla" / f"{_machine()}-{len(backend.cores())}"


def sweep(directory: pathlib.Path, limit: int = LIMIT) -> None:
    """Remove damaged entries, and the oldest entries beyond ``limit`` bytes.

    A killed process or a full disk leaves a truncated entry. jax never replaces an
    entry, so it would warn and compile again every time.

    Args:
      directory: the cache directory.
      limit: maximum total size in bytes.

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
    """Whether an entry can be decompressed completely."""
    content = path.read_bytes()
    try:
        decompress = _zstandard() if content.startswith(ZSTANDARD) else zlib.decompress
    except ImportError:
        return True  # written by a Python that can read it
    try:
        decompress(content)
    except Exception:  # each library raises its own
        return False
    return True


def _zstandard() -> Callable[[bytes], bytes]:
    """The function that jax decompresses zstandard with.

    Raises:
      ImportError: this Python has none.
    """
    try:
        return importlib.import_module("compression.zstd").decompress
    except ImportError:
        return importlib.import_module("zstandard").ZstdDecompressor().decompress


def _machine() -> str:
    """A short name for the processor's model and instruction set."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = [platform.processor()]
    kinds = ("model name", "flags", "Features", "CPU part")
    reported = sorted({line for line in lines if line.startswith(kinds)}) or lines[:1]
    digest = hashlib.sha256("\n".join(reported).encode()).hexdigest()
    return f"{platform.machine() or 'unknown'}-{digest[:8]}"
