"""Checkpoints: one file each, checksummed, written atomically.

A file is a line of JSON (format, step, SHA-256 of what follows, the run's own
notes) and then the state in flax's msgpack. It is written beside its place,
synced to disk and renamed, so a name that exists is a file that was complete;
what the disk did to it since is caught by the checksum.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any

import flax.serialization

FORMAT = 1
SUFFIX = ".ckpt"
KEEP = 2


class CheckpointError(RuntimeError):
    """No checkpoint of a run can be used; the message is one line."""


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Replace a file by ``content``, durably: readers see the old or the new.

    Args:
      path: the file.
      content: all of its bytes.

    Raises:
      OSError: the disk is full or the place cannot be written; the old file, if
        there was one, is untouched.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    """Make the names in a directory as durable as the files."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(directory: pathlib.Path, step: int, state: Any, notes: dict[str, Any]) -> None:
    """Write the checkpoint of ``step`` and drop all but the newest two.

    Args:
      directory: the run's checkpoints.
      step: optimizer steps taken.
      state: a pytree of host arrays.
      notes: what else a resume needs, as JSON.

    Raises:
      OSError: it could not be written; earlier checkpoints are intact.
    """
    directory.mkdir(exist_ok=True)
    payload = flax.serialization.to_bytes(state)
    header = {
        "format": FORMAT,
        "step": step,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "notes": notes,
    }
    line = json.dumps(header).encode() + b"\n"
    write_atomically(directory / f"step_{step:09d}{SUFFIX}", line + payload)
    for old in steps(directory)[:-KEEP]:
        old.unlink()


def steps(directory: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoint files of a run, oldest first."""
    return sorted(directory.glob(f"step_*{SUFFIX}"))


def read(path: pathlib.Path, template: Any) -> tuple[Any, dict[str, Any]]:
    """One checkpoint, verified.

    Args:
      path: the file.
      template: a pytree of the structure and shapes that are expected.

    Returns:
      The state (host arrays) and the notes saved with it.

    Raises:
      CheckpointError: not a checkpoint, another format, damaged, or the state
        of another network.
    """
    try:
        line, _, payload = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        header = json.loads(line)
        known = header["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path}: damaged (no readable header)") from None
    if not known:
        raise CheckpointError(
            f"{path}: format {header['format']}, this version reads format {FORMAT}"
        )
    if hashlib.sha256(payload).hexdigest() != header.get("sha256"):
        raise CheckpointError(f"{path}: damaged (its checksum does not match)")
    try:
        state = flax.serialization.from_bytes(template, payload)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: state of another network: {error}") from None
    return state, header["notes"]


def restore(
    directory: pathlib.Path, template: Any
) -> tuple[Any, dict[str, Any], list[str]] | None:
    """The newest checkpoint that is whole.

    Newer ones that are damaged are set aside under another name, so that they do
    not count as one of the two that are kept.

    Args:
      directory: the run's checkpoints.
      template: a pytree of the expected structure and shapes.

    Returns:
      State, notes, and a line for every newer checkpoint that was damaged; None
      where there never was a checkpoint.

    Raises:
      CheckpointError: there are checkpoints, and none can be used.
    """
    found = steps(directory)
    damaged: list[pathlib.Path] = []
    complaints: list[str] = []
    for path in reversed(found):
        try:
            state, notes = read(path, template)
        except CheckpointError as error:
            damaged.append(path)
            complaints.append(str(error))
        else:
            for other in damaged:
                other.rename(other.with_name(f"{other.name}.damaged"))
            return state, notes, complaints
    if not found:
        return None
    raise CheckpointError(
        f"no usable checkpoint in {directory}: {'; '.join(complaints)}; "
        "restore one from a backup, or delete the run directory to start again"
    )
