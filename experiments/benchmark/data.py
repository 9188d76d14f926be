"""How long a prepared set takes to be in memory, the first time and from the cache.

    python -m experiments.benchmark data cifar10 [--data_dir=DATA]

The set's files are linked into a temporary directory, so that no cache is there
at first and none is left. The second reading takes the arrays from the cache,
after the checksums of its files have been compared. Then a byte of a file is
changed, its time kept, which must change the name under which arrays are cached.
"""

import argparse
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Sequence

from cnn_jax.data import prepared
from cnn_jax.data.disk import Part, open_parts
from experiments import launch


def measure(name: str, path: str) -> dict[str, float]:
    """Seconds of the first and the second reading of a set's 'train' and 'test'.

    Args:
      name: of the set, for messages.
      path: its directory.

    Returns:
      'images', 'first' and 'cached' (seconds), and 'megabytes' of pixels.

    Raises:
      ConfigError: the set cannot be read.
      RuntimeError: the cache gave other arrays, or did not see a changed file.
    """
    with tempfile.TemporaryDirectory() as place:
        for file in os.scandir(path):
            if file.is_file():
                os.symlink(os.path.abspath(file.path), os.path.join(place, file.name))
        seconds, digests = [], []
        for _ in range(2):
            started = time.perf_counter()
            reader = prepared.Prepared(name, place)
            dataset = open_parts(reader, "train", "test", 0).in_memory()
            seconds.append(time.perf_counter() - started)
            digests.append(dataset.fingerprint)
        if digests[0] != digests[1]:
            raise RuntimeError(f"{name}: the cache gave other arrays")
        part = Part(reader, "test")
        before = part.key(remember=False)
        _change_a_byte(pathlib.Path(reader.files("test")[-1]))
        if part.key(remember=False) == before:
            raise RuntimeError(f"{name}: a changed file was not seen")
        both = (dataset.train, dataset.test)
        return {
            "images": sum(map(len, both)),
            "first": seconds[0],
            "cached": seconds[1],
            "megabytes": sum(part.images.nbytes for part in both) / 1e6,
        }


def _change_a_byte(link: pathlib.Path) -> None:
    """Put a changed copy in place of a link, with the same size and time."""
    target = link.resolve()
    link.unlink()
    shutil.copy2(target, link)
    stamp = os.stat(link)
    os.chmod(link, 0o600)
    with open(link, "r+b") as file:
        file.seek(stamp.st_size // 2)
        byte = file.read(1)
        file.seek(stamp.st_size // 2)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(link, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def define(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("name", help="a prepared data set")
    parser.add_argument("--data_dir", default="", help="where data sets are kept")


def body(values: argparse.Namespace) -> int:
    """Measure, and print."""
    found = measure(values.name, prepared.find(values.name, values.data_dir))
    print(
        f"{values.name}: {found['images']:,} images, {found['megabytes']:.0f} MB: "
        f"{found['first']:.2f} s at first, {found['cached']:.2f} s from the cache"
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subject; returns its exit status."""
    return launch.run(body, define, __doc__, argv)
