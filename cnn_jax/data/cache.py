"""A cache, beside a dataset, of results computed from it.

A checksum of their inputs names decoded arrays and statistics, so a stale entry is
never used after the source changes. The cache only saves time: if it cannot be
written, the results are computed again.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FOLDER = ".cnn_jax"
CLOCK = 3 * 10**9  # ns; the coarsest file systems have a resolution of two seconds


class Cache:
    """Arrays by name, beside a dataset or, if it is read-only, in the user's cache.

    Args:
      beside: directory of the dataset.
    """

    def __init__(self, beside: str):
        self.beside = os.path.abspath(beside)

    def folders(self) -> list[pathlib.Path]:
        """Directories that may hold entries, the preferred one first."""
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        own = hashlib.sha256(self.beside.encode()).hexdigest()[:16]
        places = [pathlib.Path(home, "cnn_jax", own)]
        # Never write to a set without any write permission, not even as root, whom
        # the system would let write.
        if os.stat(self.beside).st_mode & 0o222:
            places.insert(0, pathlib.Path(self.beside, FOLDER))
        return places

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays stored under a name; None if absent or damaged."""
        for folder in self.folders():
            # The archive has a checksum for each array; NumPy and zipfile raise many
            # types of errors on damage.
            with (
                contextlib.suppress(Exception),
                open(folder / f"{name}.npz", "rb") as file,
                np.load(file, allow_pickle=False) as found,
            ):
                return {key: found[key] for key in found.files}
        return None

    def write(self, name: str, arrays: Mapping[str, np.ndarray], replaces: str) -> None:
        """Store arrays under a name, atomically, in place of older ones.

        Args:
          name: name of the entry.
          arrays: arrays to store.
          replaces: pattern of the names of entries that this one makes obsolete.
        """
        for folder in self.folders():
            writer = f"{socket.gethostname()}.{os.getpid()}"
            partial = folder / f"{name}.{writer}.tmp"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with open(partial, "wb") as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]  # a name is no option
                for old in folder.glob(f"{replaces}.npz"):
                    old.unlink(missing_ok=True)
                os.replace(partial, folder / f"{name}.npz")
                return
            except OSError:  # read-only or full: try the next place, if any
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)

    def checksums(self, files: Sequence[str], remember: bool) -> dict[str, str]:
        """SHA-256 of files.

        Args:
          files: their paths.
          remember: reuse a file's stored checksum if its size and modification time
            are unchanged; for sets too large to read at every start. The checksum of
            a file modified just now is not stored, because the file may change again
            within the resolution of the file system's clock.

        Returns:
          Checksum of each file in hexadecimal, by its path relative to the set.

        Raises:
          OSError: a file cannot be read.
        """
        name = "checksums"
        kept: dict[str, Any] = {}
        if remember and (found := self.read(name)) is not None:
            kept = json.loads(str(found["json"]))
        stamps = {}
        settled = time.time_ns() - CLOCK
        for file in files:
            stat = os.stat(file)
            stamps[file] = [stat.st_size, stat.st_mtime_ns]
        relative = {file: os.path.relpath(file, self.beside) for file in files}
        new = [f for f in files if kept.get(relative[f], [None])[0] != stamps[f]]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for file, digest in zip(new, pool.map(sha256, new), strict=True):
                kept[relative[file]] = [stamps[file], digest]
        if remember and new:
            old = {file: kept[file] for file in kept if kept[file][0][1] < settled}
            self.write(name, {"json": np.array(json.dumps(old))}, name)
        return {relative[file]: kept[relative[file]][1] for file in files}


def key(**parts: Any) -> str:
    """A key for a result that depends only on ``parts`` (of JSON types)."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def sha256(path: str) -> str:
    """Hexadecimal checksum of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
