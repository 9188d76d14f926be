"""Measure how long a prepared set takes to read, uncached and from the cache.

    python -m experiments.benchmark data cifar10 [--data_dir=DATA]

Links the set's files into a temporary directory, so that the first reading finds no
cache and none is left behind. The second reading verifies the checksums of the
cache's files, then takes the arrays from the cache.
"""

import argparse
import os
import tempfile
import time

from cnn_jax.data import Dataset, prepared
from cnn_jax.data.disk import open_parts
from experiments import launch


def measure(name: str, path: str) -> tuple[Dataset, float, float]:
    """Time the first and the second reading of a set's 'train' and 'test' splits.

    Args:
      name: name of the set, for messages.
      path: directory of the set.

    Returns:
      The set, and the seconds of the first and of the second reading.
    """
    with tempfile.TemporaryDirectory() as place:
        for file in os.scandir(path):
            if file.is_file():
                os.symlink(os.path.abspath(file.path), os.path.join(place, file.name))
        seconds, found = [], []
        for _ in range(2):
            started = time.perf_counter()
            parts = open_parts(prepared.Prepared(name, place), "train", "test", 0)
            found.append(parts.in_memory())
            seconds.append(time.perf_counter() - started)
    if found[0].fingerprint != found[1].fingerprint:
        raise RuntimeError(f"{name}: the cached arrays differ from the decoded ones")
    return found[0], *seconds


def define(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("name", help="name of a prepared dataset")
    parser.add_argument("--data_dir", default="", help="directory of datasets")


@launch.command(__doc__, define)
def main(values: argparse.Namespace) -> None:
    """Measure and print the results."""
    path = prepared.find(values.name, values.data_dir)
    found, first, cached = measure(values.name, path)
    size = (found.train.images.nbytes + found.test.images.nbytes) / 1e6
    print(
        f"{values.name}: {len(found.train) + len(found.test):,} images, {size:.0f} MB: "
        f"{first:.2f} s to decode, {cached:.2f} s from the cache"
    )
