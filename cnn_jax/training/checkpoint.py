"""Checkpoints: one file each, checksummed, written atomically.

A file is one line of JSON with the format and the SHA-256 of the rest, a second with
the step and the run's notes, and the state in flax's msgpack. It is written under a
temporary name, synced to disk and renamed, so a file under its final name was
complete. The checksum detects later damage on disk.
"""

import hashlib
import json
import pathlib
import re
from typing import Any

import flax.serialization
import jax
import numpy as np

from cnn_jax.training.files import sync_directory, write_atomically

FORMAT = 2
NAME = re.compile(r"step_(\d{9,})\.ckpt")
KEEP = 2


class CheckpointError(RuntimeError):
    """No checkpoint of a run can be used; the message is one line."""


class Damaged(CheckpointError):
    """A checkpoint differs from what was written; the previous one may be intact."""


def save(directory: pathlib.Path, step: int, state: Any, notes: dict[str, Any]) -> None:
    """Write the checkpoint of ``step`` and delete all but the newest two.

    Args:
      directory: the run's checkpoint directory.
      step: optimizer steps taken.
      state: a pytree of host arrays.
      notes: other data for resuming, of JSON types.

    Raises:
      OSError: the write failed; earlier checkpoints are intact.
    """
    if not directory.is_dir():
        directory.mkdir()
        sync_directory(directory.parent)
    body = json.dumps({"step": step, "notes": notes}).encode() + b"\n"
    body += flax.serialization.to_bytes(state)
    header = {"format": FORMAT, "sha256": _checksum(FORMAT, body)}
    content = json.dumps(header).encode() + b"\n" + body
    write_atomically(directory / f"step_{step:09d}.ckpt", content)
    for old in steps(directory)[:-KEEP]:
        old.unlink()


def steps(directory: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoint files of a run, oldest first; other files are ignored."""
    if not directory.is_dir():
        return []
    found = {
        int(match[1]): path
        for path in directory.iterdir()
        if (match := NAME.fullmatch(path.name)) and not path.is_dir()
    }
    return [found[step] for step in sorted(found)]


def read(path: pathlib.Path, template: Any) -> tuple[Any, dict[str, Any]]:
    """Read and verify one checkpoint.

    Args:
      path: the file.
      template: a pytree with the expected structure and shapes.

    Returns:
      The state (host arrays) and the notes saved with it.

    Raises:
      Damaged: the file is unreadable or differs from what was written.
      CheckpointError: it is intact, but has another format or another network.
    """
    notes, payload = _verified(path)
    try:
        state = flax.serialization.from_bytes(template, payload)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: state of another network: {error}") from None
    for expected, leaf in zip(
        jax.tree.leaves(template), jax.tree.leaves(state), strict=True
    ):
        if _kind(expected) != _kind(leaf):
            raise CheckpointError(
                f"{path}: state of another network: expected an array of "
                f"{_kind(expected)}, got {_kind(leaf)}"
            )
    return state, notes


def notes(path: pathlib.Path) -> dict[str, Any]:
    """Read and verify the notes of one checkpoint.

    Raises:
      Damaged: the file is unreadable or differs from what was written.
      CheckpointError: it has another format.
    """
    return _verified(path)[0]


def _verified(path: pathlib.Path) -> tuple[dict[str, Any], bytes]:
    """The notes and the serialised state of a checkpoint, verified."""
    try:
        line, _, body = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise Damaged(f"{path}: cannot be read: {error.strerror}") from None
    try:
        header = json.loads(line)
        version, checksum = header["format"], header["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Damaged(f"{path}: damaged (no readable header)") from None
    if checksum != _checksum(version, body):
        raise Damaged(f"{path}: damaged (checksum mismatch)")
    if version != FORMAT:
        raise CheckpointError(
            f"{path}: the checkpoint has format {version}, but this version reads "
            f"{FORMAT}; resume with the version that wrote it, or delete the run "
            "directory"
        )
    line, _, payload = body.partition(b"\n")
    head = json.loads(line)
    if f"step_{head['step']:09d}.ckpt" != path.name:
        raise Damaged(f"{path}: damaged (contains step {head['step']})")
    return head["notes"], payload


def restore(
    directory: pathlib.Path, template: Any
) -> tuple[Any, dict[str, Any], list[str]] | None:
    """Restore the newest intact checkpoint.

    Newer but damaged checkpoints are renamed, so that they do not count among the
    two that `save` keeps.

    Args:
      directory: the run's checkpoint directory.
      template: a pytree with the expected structure and shapes.

    Returns:
      State, notes, and one line for each newer, damaged checkpoint; None if the
      directory holds no checkpoint.

    Raises:
      CheckpointError: there are checkpoints, but none is usable.
    """
    found = steps(directory)
    damaged: list[pathlib.Path] = []
    complaints: list[str] = []
    for path in reversed(found):
        try:
            state, notes = read(path, template)
        except Damaged as error:
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


def _checksum(version: Any, body: bytes) -> str:
    """SHA-256 of the format number and everything after the header."""
    digest = hashlib.sha256(f"format {version}\n".encode())
    digest.update(body)
    return digest.hexdigest()


def _kind(leaf: Any) -> str:
    array = np.asarray(leaf)
    return f"{array.dtype}{list(array.shape)}"
