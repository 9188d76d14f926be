"""What is computed once from a data set and kept beside it.

Decoded arrays and statistics are named by a checksum of what they came from, so
a changed source finds nothing and a stale entry is never used. A cache only
saves time: where it cannot be written, the work is done again.
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
CLOCK = 3 * 10**9  # ns; the coarsest file systems count in steps of two seconds


class Cache:
    """Arrays by name, beside a data set, or in the user's cache if it is read-only.

    Args:
      beside: directory of the data set.
    """

    def __init__(self, beside: str):
        self.beside = os.path.abspath(beside)

    def folders(self) -> list[pathlib.Path]:
        """Where entries may be, the preferred place first."""
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        own = hashlib.sha256(self.beside.encode()).hexdigest()[:16]
        places = [pathlib.Path(home, "cnn_jax", own)]
        # A set whose owner took away all write permission is left alone, also
        # by root, whom the system would let write.
        if os.stat(self.beside).st_mode & 0o222:
            places.insert(0, pathlib.Path(self.beside, FOLDER))
        return places

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays kept under a name; None if absent or damaged."""
        for folder in self.folders():
            # The archive has a checksum of each array; of a damaged one NumPy and
            # zipfile raise nearly anything.
            with (
                contextlib.suppress(Exception),
                open(folder / f"{name}.npz", "rb") as file,
                np.load(file, allow_pickle=False) as found,
            ):
                return {key: found[key] for key in found.files}
        return None

    def write(self, name: str, arrays: Mapping[str, np.ndarray], replaces: str) -> None:
        """Keep arrays under a name, atomically, in place of older ones.

        Args:
          name: of the entry.
          arrays: what to keep.
          replaces: pattern of the names of entries that this one makes useless.
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
            except OSError:  # read-only, full: the next place, or none
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)

    def checksums(self, files: Sequence[str], remember: bool) -> dict[str, str]:
        """SHA-256 of files.

        Args:
          files: their paths.
          remember: take a file's checksum from last time if its size and time
            of change are the same; for sets too large to read at every start. Of a
            file changed just now it is not kept, for it may change again within what
            the file system's clock tells apart.

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
    """A name for what depends on ``parts`` (of JSON's types) and nothing else."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def sha256(path: str) -> str:
    """Hexadecimal checksum of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
