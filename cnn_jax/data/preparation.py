"""Preparation of datasets: built by tensorflow-datasets (TFDS), as array_record.

Building a set of TFDS needs TensorFlow; reading it afterwards does not. A set that
already exists as tfrecord files is not rebuilt: its records are written as array_record
next to them, without TensorFlow.
"""

import contextlib
import difflib
import fcntl
import importlib.util
import json
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from cnn_jax import names
from cnn_jax.data import digits, prepared

# Packages that TFDS's own builders import and this project does not need.
NEEDED = ("tensorflow", "importlib_resources")


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> dict[str, Any]:
    """Download and write a dataset unless it exists; then check it.

    Args:
      name: ``set`` or ``set/config`` of TFDS, or ``package.module:Builder``.
      data_dir: as in `prepared.directory`.
      manual_dir: directory of the files that must be downloaded manually; '' for
        ``data_dir/downloads/manual``.

    Returns:
      A printable description of the set: 'path', 'classes', 'channels', splits.

    Raises:
      ConfigError: unknown name, missing package or file, failed download, read-only
        directory, or a set that is not for image classification.
    """
    if name == "digits":
        return _describe(name, digits.prepare(data_dir))
    root = prepared.directory(data_dir)
    path = _there(name, data_dir)
    if not path or _tfrecords(path):
        prepared.check_writable(name, data_dir)
        with _alone(root):
            path = _there(name, data_dir) or _build(name, root, manual_dir)
            if _tfrecords(path):
                convert(path)
    return _describe(name, path)


def _there(name: str, data_dir: str) -> str:
    """The directory of an existing set, in any format; '' if there is none."""
    try:
        return prepared.find(name, data_dir)
    except names.ConfigError:
        return ""


@contextlib.contextmanager
def _alone(root: str) -> Iterator[None]:
    """Lock a root: one process prepares at a time, and the others wait for it."""
    os.makedirs(root, exist_ok=True)
    with open(os.path.join(root, ".preparing"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(name: str, root: str, manual_dir: str) -> str:
    """Download and write a TFDS set unless it exists; return its directory."""
    builder = _builder(name, root)
    path = str(builder.data_dir)
    if not os.path.exists(os.path.join(path, "dataset_info.json")):
        _check_manual_files(name, builder, root, manual_dir)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
        try:
            builder.download_and_prepare(download_config=config)
        except Exception as error:  # errors of TFDS, the network or the disk
            kind, text = type(error).__name__, " ".join(str(error).split())
            raise names.ConfigError(
                f"dataset {name!r} could not be prepared under {root!r}: {kind}: {text}"
            ) from error
    return path


def _builder(name: str, root: str) -> tfds.core.DatasetBuilder:
    known: dict[str, Any] = {}
    base, _, config = name.partition("/")
    if ":" not in name:
        everything = tfds.list_builders(with_community_datasets=False)
        if base not in everything:
            near = difflib.get_close_matches(base, everything, n=5, cutoff=0)
            error = names.choices("TFDS dataset", base, near)
            more = len(everything) - len(near)
            raise names.ConfigError(f"{error}, and {more} less similar names")
        missing = [need for need in NEEDED if importlib.util.find_spec(need) is None]
        if missing:
            raise names.ConfigError(
                f"preparing {base!r} needs {' and '.join(missing)}: run "
                "`pip install -e '.[prepare]'` in the project's folder first"
            )
        known[base] = tfds.builder_cls(base)
    target = names.resolve("dataset builder", base, known)
    chosen = {"config": config} if config else {}
    try:
        return target(data_dir=root, file_format="array_record", **chosen)
    except ValueError as error:
        text = " ".join(str(error).split())
        raise names.ConfigError(f"dataset {name!r} under {root!r}: {text}") from error


def _check_manual_files(
    name: str, builder: tfds.core.DatasetBuilder, root: str, manual_dir: str
) -> None:
    """Raise an error that names the missing manual files and their directory."""
    instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    place = manual_dir or os.path.join(root, "downloads", "manual")
    if instructions and not (os.path.isdir(place) and os.listdir(place)):
        raise names.ConfigError(
            f"dataset {name!r} needs files that TFDS cannot download; put them "
            f"into {place!r}, or name their folder with --manual_dir: "
            f"{' '.join(instructions.split())}"
        )


def _tfrecords(path: str) -> dict[str, Any]:
    """The description of a set that has only tfrecord files, else an empty dict."""
    try:
        about = json.loads(pathlib.Path(path, "dataset_info.json").read_text())
        others = about.get("alternativeFileFormats", [])
        only = about["fileFormat"] == "tfrecord" and "array_record" not in others
        return about if only else {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # a damaged file; opening the set reports it


def convert(path: str) -> None:
    """Copy a set's tfrecord files to array_record files in the same directory.

    Records are the same in both formats. TFDS calls the second one an "alternative
    file format" of the set; its own ``convert_format`` needs Beam and TensorFlow.

    Args:
      path: directory of the set.

    Raises:
      ConfigError: a file lacks records or is not a tfrecord file.
    """
    about = _tfrecords(path)
    for split in tfds.builder_from_directory(path).info.splits.values():
        new = split.filename_template.replace(filetype_suffix="array_record")
        targets = new.sharded_filepaths(len(split.shard_lengths))
        shards = zip(split.filepaths, targets, split.shard_lengths, strict=True)
        for source, target, expected in shards:
            beside = f"{target}.incomplete"
            try:
                found = _copy(str(source), beside)
                if found != expected:
                    raise names.ConfigError(
                        f"{str(source)!r} has {found:,} intact records; "
                        f"dataset_info.json declares {expected:,}"
                    )
                os.replace(beside, target)
            except RuntimeError as error:  # array_record's: the disk is full
                raise names.ConfigError(f"{beside!r}: {error}") from error
            finally:
                pathlib.Path(beside).unlink(missing_ok=True)
            print(f"wrote {target}", flush=True)
    about.setdefault("alternativeFileFormats", []).append("array_record")
    info = pathlib.Path(path, "dataset_info.json")
    new = info.with_suffix(".incomplete")
    new.write_text(json.dumps(about, indent=2))
    os.replace(new, info)


def _copy(source: str, target: str) -> int:
    """Write the records of a tfrecord file as array_record; return their number."""
    writer, count = ArrayRecordWriter(target, "group_size:1"), 0
    for record in records(source):
        writer.write(record)
        count += 1
    writer.close()
    return count


def records(path: str) -> Iterator[bytes]:
    """The records of a tfrecord file, up to the first truncated one.

    A record consists of its length (8 bytes), the length's checksum (4), the content
    and the content's checksum (4). Checksums are not verified.
    """
    with open(path, "rb") as file:
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", head[:8])
            left = os.fstat(file.fileno()).st_size - file.tell()
            if length + 4 > left:
                return
            yield file.read(length)
            file.seek(4, os.SEEK_CUR)


def _describe(name: str, path: str) -> dict[str, Any]:
    """Open the set as a run does, which validates it, and describe it."""
    reader = prepared.Prepared(name, path)
    splits = {split: reader.count(split) for split in reader.builder.info.splits}
    return {
        "path": path,
        "classes": reader.num_classes,
        "channels": reader.channels,
        **splits,
    }
