"""Download a data set of tensorflow-datasets and write it as array_record.

    python -m experiments.prepare cifar10
    python -m experiments.prepare imagenet2012 --data_dir=/data --manual_dir=/ilsvrc
    python -m experiments.prepare my_package.my_set:Builder

The name is TFDS's own (``set`` or ``set/config``), or a builder class of yours.
Building the sets of TFDS needs TensorFlow (``pip install -e '.[prepare]'``);
reading them afterwards does not.
"""

import argparse
import difflib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from cnn_jax import names
from cnn_jax.data import digits, prepared
from experiments import launch

# What the builders that come with TFDS import, beyond what this project needs.
NEEDED = ("tensorflow", "importlib_resources")


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> dict[str, Any]:
    """Download and write a data set, unless it is there; then check it.

    Args:
      name: ``set`` or ``set/config`` of TFDS, or ``package.module:Builder``.
      data_dir: as in `prepared.directory`.
      manual_dir: where files are that must be fetched by hand; '' for
        ``data_dir/downloads/manual``.

    Returns:
      What there is now, for people: 'path', 'classes', 'channels', splits.

    Raises:
      ConfigError: unknown name, a package or a file that is missing, a failed
        download, a read-only directory, or what is not image classification.
    """
    if name == "digits":
        return _describe(name, digits.prepare(data_dir))
    root = prepared.directory(data_dir)
    builder = _builder(name, root)
    path = str(builder.data_dir)
    if not os.path.exists(os.path.join(path, "dataset_info.json")):
        prepared.check_writable(name, data_dir)
        _check_manual_files(name, builder, root, manual_dir)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
        try:
            builder.download_and_prepare(download_config=config)
        except Exception as error:  # TFDS raises its own, the network's, the disk's
            kind, text = type(error).__name__, " ".join(str(error).split())
            raise names.ConfigError(
                f"dataset {name!r} could not be prepared under {root!r}: {kind}: {text}"
            ) from error
    return _describe(name, path)


def _builder(name: str, root: str) -> tfds.core.DatasetBuilder:
    known: dict[str, Any] = {}
    base, _, config = name.partition("/")
    if ":" not in name:
        everything = tfds.list_builders(with_community_datasets=False)
        if base not in everything:
            near = difflib.get_close_matches(base, everything, n=5, cutoff=0)
            error = names.choices("dataset of TFDS", base, near)
            more = len(everything) - len(near)
            raise names.ConfigError(f"{error}, and {more} that are less alike")
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
        raise names.ConfigError(
            f"dataset {name!r} under {root!r}: {text} (a set that is there in "
            "another file format must be moved away first)"
        ) from error


def _check_manual_files(
    name: str, builder: tfds.core.DatasetBuilder, root: str, manual_dir: str
) -> None:
    """Say which files go where, if there are none yet."""
    instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    place = manual_dir or os.path.join(root, "downloads", "manual")
    if instructions and not (os.path.isdir(place) and os.listdir(place)):
        raise names.ConfigError(
            f"dataset {name!r} needs files that you must fetch yourself and put "
            f"into {place!r} (or name their folder with --manual_dir): "
            f"{' '.join(instructions.split())}"
        )


def _describe(name: str, path: str) -> dict[str, Any]:
    """Open the set as a run would, which checks its form."""
    reader = prepared.Prepared(name, path)
    splits = {split: reader.count(split) for split in reader.builder.info.splits}
    return {
        "path": path,
        "classes": reader.num_classes,
        "channels": reader.channels,
        **splits,
    }


def define(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("name", help="a data set of TFDS, or package.module:Builder")
    parser.add_argument(
        "--data_dir",
        default="",
        help="where data sets are kept; by default TFDS_DATA_DIR, else "
        "~/tensorflow_datasets",
    )
    parser.add_argument(
        "--manual_dir", default="", help="folder of files that were fetched by hand"
    )


def body(values: argparse.Namespace) -> int:
    """Prepare the set, and print what there is now."""
    launch.show(prepare(values.name, values.data_dir, values.manual_dir))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return launch.run(body, define, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
