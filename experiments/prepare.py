"""Download a dataset with tensorflow-datasets (TFDS) and write it as array_record.

    python -m experiments.prepare cifar10
    python -m experiments.prepare imagenet2012 --data_dir=/data --manual_dir=/ilsvrc
    python -m experiments.prepare my_package.my_set:Builder

The name is a TFDS name (``set`` or ``set/config``) or a user-defined builder class.
Building a TFDS set needs TensorFlow (``pip install -e '.[prepare]'``); reading it
afterwards does not. A set that already exists as tfrecord files is not rebuilt: the
command writes its records as array_record next to them, without TensorFlow.
"""

import argparse
import sys

from cnn_jax.data.preparation import prepare
from experiments import launch


def define(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("name", help="TFDS dataset, or package.module:Builder")
    data = "directory of datasets (default: TFDS_DATA_DIR, else ~/tensorflow_datasets)"
    add("--data_dir", default="", help=data)
    add("--manual_dir", default="", help="folder of files that you downloaded yourself")


@launch.command(__doc__, define)
def main(values: argparse.Namespace) -> None:
    """Prepare the set and print its description."""
    launch.show(prepare(values.name, values.data_dir, values.manual_dir))


if __name__ == "__main__":
    sys.exit(main())
