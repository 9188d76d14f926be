"""Convert weights between torchvision and this package.

    python -m experiments.convert resnet50 resnet50.safetensors mine.safetensors
    python -m experiments.convert resnet50 mine.safetensors back.safetensors
    python -m experiments.convert resnet50 resnet50.safetensors mine.safetensors \\
        --evaluate=configs/resnet50_imagenet.py --data_dir=DATA

The network goes by torchvision's name. The source is a state_dict, as
safetensors or (where torch is installed) a .pth file; or variables that this
command wrote, which it turns back. The target is safetensors. ``--evaluate``
measures the weights on the test set of a config, preprocessed as that says.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from cnn_jax import names
from cnn_jax.models import torchvision, weights
from cnn_jax.train.program import Program
from experiments import config_file, launch, train


def read(name: str, source: str) -> tuple[nn.Module, dict[str, Any], bool]:
    """The weights of a file, in whichever of the two forms it holds them.

    Args:
      name: torchvision's name of the network.
      source: file of a state_dict, or of variables (see `weights.flatten`).

    Returns:
      The network, its variables, and whether the file holds variables.

    Raises:
      ConfigError: unknown network, or a file that cannot be read.
      ValueError: the tensors are not those of the network.
    """
    names.resolve("torchvision net", name, torchvision.NETS)
    tensors = weights.read_tensors(source)
    ours = any(key.startswith("params/") for key in tensors)
    resnet = name.startswith("resnet")
    last = "fc.bias" if resnet else "classifier.6.bias"
    if ours:
        last = "params/head/bias" if resnet else "params/fc8/bias"
    if last not in tensors:
        raise ValueError(f"{source}: no weights of {name}: they lack {last!r}")
    module = torchvision.create(name, num_classes=len(tensors[last]))
    if ours:
        return module, weights.unflatten(tensors), True
    return module, torchvision.from_state_dict(module, tensors), False


def convert(name: str, source: str, target: str) -> dict[str, Any]:
    """Convert a file (see `read`) to ``target``, .safetensors, in the other form.

    Returns:
      What was done, for people: 'wrote', 'classes', 'tensors', 'parameters'.

    Raises:
      ConfigError: as `read`, or a file that cannot be written.
      ValueError: the tensors are not those of the network.
    """
    module, variables, ours = read(name, source)
    flat = weights.flatten(variables)
    written = torchvision.to_state_dict(module, variables) if ours else flat
    weights.write_tensors(target, written)
    return {
        "wrote": f"{target} ({'torchvision' if ours else 'cnn_jax'} names)",
        "classes": module.num_classes,
        "tensors": len(written),
        "parameters": sum(flat[key].size for key in flat if key.startswith("params/")),
    }


def evaluate(name: str, source: str, file: str, data_dir: str) -> dict[str, float]:
    """Test loss and error of weights.

    Args:
      name: torchvision's name of the network.
      source: as in `read`.
      file: a run's config; its network is replaced by ``name``.
      data_dir: where the config's data set is; '' for what the config says.

    Returns:
      'test_loss' (nats) and 'test_error' (a fraction).

    Raises:
      ConfigError: the config cannot be run, or is for images or classes of another
        number.
      ValueError: the tensors are not those of the network.
    """
    config = config_file.load(file).to_dict()
    train.check(config)
    model, fields = torchvision.NETS[name]
    config["model"] = {"name": model, **fields}
    if data_dir:
        config["dataset"]["data_dir"] = data_dir
    program = Program(config)
    _, variables, _ = read(name, source)
    state = program.initial_state(0)
    loaded = state.replace(
        params=variables["params"], batch_stats=variables.get("batch_stats", {})
    )
    pairs = zip(jax.tree.leaves(loaded), jax.tree.leaves(state), strict=True)
    for found, expected in pairs:
        if found.shape != expected.shape:
            raise names.ConfigError(
                f"{source}: a tensor is {found.shape}, {name} for the "
                f"{program.source.num_classes} classes of {file} has {expected.shape}"
            )
    totals = program.evaluate(program.place(loaded), "test")
    return {f"test_{key}": value for key, value in totals.items()}


def define(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("network", help=", ".join(torchvision.NETS))
    parser.add_argument("source", help="file of weights")
    parser.add_argument("target", help="file to write, .safetensors")
    parser.add_argument(
        "--evaluate", metavar="CONFIG", default="", help="test the weights on its data"
    )
    parser.add_argument("--data_dir", default="", help="where the data set is")


def body(values: argparse.Namespace) -> int:
    """Convert, evaluate if asked, and print what was done."""
    try:
        done = convert(values.network, values.source, values.target)
        if values.evaluate:
            done |= evaluate(
                values.network, values.source, values.evaluate, values.data_dir
            )
    except ValueError as error:  # the tensors are of another network
        raise names.ConfigError(str(error)) from error
    launch.show(done)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return launch.run(body, define, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
