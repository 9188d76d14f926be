"""Convert published PyTorch weights to networks of this package, and back.

    python -m experiments.convert resnet50 resnet50.safetensors mine.safetensors
    python -m experiments.convert resnet50 mine.safetensors back.safetensors
    python -m experiments.convert akamaster/resnet20 resnet20.th r20.safetensors
    python -m experiments.evaluate r20.safetensors --data_dir=DATA

The network is named as its publisher names it: torchvision's names without a prefix,
others as `timm/resnet50`, `chenyaofo/cifar10_resnet20`, `akamaster/resnet20`. The
source is a state_dict, in safetensors or (with torch installed) torch's own format, or
a file that this command wrote, which it converts back. The target is a safetensors
file; it also holds the config and the preprocessing of the weights, so that
`experiments.evaluate` and ``cnn_jax.load_run`` can read it. ``--evaluate`` measures
the weights on the test set of a config, with that config's preprocessing.
"""

import argparse
import sys

from cnn_jax.analysis.published import convert, evaluate
from cnn_jax.models import families
from cnn_jax.names import ConfigError
from experiments import config_file, launch, train


def define(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("network", help=", ".join(families.NETS))
    add("source", help="weight file to read")
    add("target", help="safetensors file to write")
    measured = "evaluate the weights on the data of this config"
    add("--evaluate", metavar="CONFIG", default="", help=measured)
    add("--data_dir", default="", help="directory of the dataset")


@launch.command(__doc__, define)
def main(values: argparse.Namespace) -> None:
    """Convert the file, evaluate it on request and print a summary."""
    if values.data_dir and not values.evaluate:
        raise ConfigError("--data_dir needs --evaluate")
    try:
        done = convert(values.network, values.source, values.target)
        if values.evaluate:
            config = config_file.load(values.evaluate).to_dict()
            train.check(config)
            done |= evaluate(values.network, values.source, config, values.data_dir)
    except ValueError as error:  # the tensors belong to another network
        raise ConfigError(str(error)) from error
    launch.show(done)


if __name__ == "__main__":
    sys.exit(main())
