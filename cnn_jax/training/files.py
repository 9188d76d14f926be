"""Files of runs and studies: atomic writes, checksums, and one-line read errors."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Any

from cnn_jax.names import ConfigError

# Files that operating systems and redirected output leave in a new directory.
HARMLESS = ("Thumbs.db", "desktop.ini", "lost+found")
OUTPUT = (".log", ".out", ".err", ".txt")
CHECKSUM = "sha256"  # the key of a JSON file's own checksum


def local(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path of a directory, with ``~`` expanded.

    Args:
      path: a path in a mounted file system.

    Raises:
      ConfigError: an address such as gs://bucket/name, or an unknown home directory.
    """
    text = os.fspath(path)
    # pathlib shortens gs:// to gs:/
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text)
    if scheme:
        raise ConfigError(
            f"{text} is not a directory: runs need file locks and atomic renames, "
            "which buckets lack; train on a local or shared disk and copy the "
            "directory afterwards"
        )
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{text}: the home directory is unknown (HOME is not set); use a path "
            "that begins with /"
        ) from None


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Replace a file atomically and durably: readers see the old or the new content.

    Args:
      path: the file.
      content: the new content.

    Raises:
      OSError: the disk is full or the directory is not writable; an existing file
        is unchanged.
    """
    writer = f"{socket.gethostname()}.{os.getpid()}"
    beside = path.with_name(f".{path.name}.{writer}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: pathlib.Path) -> None:
    """Sync the entries of a directory to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: pathlib.Path, advice: str) -> bytes | None:
    """The content of a file, or None if it does not exist.

    Args:
      path: the file.
      advice: advice for the error message.

    Raises:
      ConfigError: the file cannot be read, in one line.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; {advice}"
        ) from None


def read_json(
    path: pathlib.Path,
    advice: str,
    checked: Callable[[dict[str, Any]], bool] = lambda found: False,
) -> dict[str, Any] | None:
    """The JSON object in a file, or None if the file does not exist.

    Args:
      path: the file.
      advice: advice for the error message.
      checked: (object) to whether `write_json` wrote it, in which case it must have a
        checksum. A checksum that is present is always verified.

    Returns:
      The object, without its checksum.

    Raises:
      ConfigError: the file cannot be read, is not a JSON object or has changed since
        it was written, in one line.
    """
    content = read(path, advice)
    if content is None:
        return None
    try:
        found = json.loads(content)
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        checksum = found.pop(CHECKSUM, None)
        if checksum != _checksum(found) and (checksum is not None or checked(found)):
            raise ValueError("damaged or modified (checksum mismatch)")
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; {advice}") from None
    return found


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Replace a file by a JSON object and its checksum (see `write_atomically`)."""
    plain = json.loads(json.dumps(dict(content)))
    text = json.dumps({**plain, CHECKSUM: _checksum(plain)}, indent=2) + "\n"
    write_atomically(path, text.encode())


def _checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, independent of its layout and key order."""
    return sha256(json.dumps(content, sort_keys=True).encode())


def sha256(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def strangers(directory: pathlib.Path, ours: Collection[pathlib.Path]) -> list[str]:
    """Names of the files in a directory that a new run must not share it with.

    Args:
      directory: an existing directory.
      ours: files to ignore, beside hidden ones and those that operating systems and
        redirected output leave.
    """
    return sorted(
        item.name
        for item in directory.iterdir()
        if item not in ours and not _is_harmless(item)
    )


def _is_harmless(item: pathlib.Path) -> bool:
    if item.name.startswith(".") or item.name in HARMLESS:
        return True
    if not item.is_file():
        return False
    # This process's redirected output may have any name.
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(item.stat(), os.fstat(stream)):
                return True
    return item.suffix in OUTPUT
