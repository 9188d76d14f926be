"""Export a run's network to a single file.

    python -m experiments.export runs/first first.safetensors
    python -m experiments.export runs/first first.stablehlo

A .safetensors file holds the weights, the config and the preprocessing;
`experiments.evaluate` and ``cnn_jax.load_run`` read it. A .stablehlo file is a program
from raw uint8 images to logits; ``jax.export.deserialize`` reads it without this
package.
"""

import argparse
import pathlib
import sys

import cnn_jax
from cnn_jax.analysis import exchange
from cnn_jax.names import ConfigError
from cnn_jax.training.files import write_atomically
from experiments import launch


def define(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="run directory or weight file")
    parser.add_argument("target", help="file to write: .safetensors or .stablehlo")
    parser.add_argument("--averaged", action="store_true", help="use the EMA weights")


@launch.command(__doc__, define)
def main(values: argparse.Namespace) -> None:
    """Write the file."""
    target = pathlib.Path(values.target)
    if target.suffix not in (".safetensors", ".stablehlo"):
        raise ConfigError(f"{target}: the name must end in .safetensors or .stablehlo")
    net = cnn_jax.load_run(values.run, averaged=values.averaged)
    if target.suffix == ".safetensors":
        exchange.save(net, target)
    else:
        write_atomically(target, exchange.export(net))
    launch.show({"wrote": f"{target} ({target.stat().st_size:,} bytes)"})


if __name__ == "__main__":
    sys.exit(main())
