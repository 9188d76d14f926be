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
import pathlib
import runpy
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax import names
from cnn_jax.models import torchvision, weights
from cnn_jax.train.program import Program


def convert(name: str, source: str, target: str) -> dict[str, Any]:
    """Convert a file.

    Args:
      name: torchvision's name of the network.
      source: file of a state_dict, or of variables (see `weights.flatten`).
      target: file to write, .safetensors.

    Returns:
      What was done, for people: 'wrote', 'classes', 'tensors', 'parameters'.

    Raises:
      ConfigError: unknown network, or a file that cannot be read or written.
      ValueError: the tensors are not those of the network.
    """
    names.resolve("torchvision net", name, torchvision.NETS)
    tensors = weights.read_tensors(source)
    ours = any(key.startswith("params/") for key in tensors)
    last = "params/head/bias" if name.startswith("resnet") else "params/fc8/bias"
    if not ours:
        last = "fc.bias" if name.startswith("resnet") else "classifier.6.bias"
    if last not in tensors:
        raise ValueError(f"{source}: no weights of {name}: they lack {last!r}")
    module = torchvision.create(name, num_classes=len(tensors[last]))
    if ours:
        variables = weights.unflatten(tensors)
        written = torchvision.to_state_dict(module, variables)
    else:
        variables = torchvision.from_state_dict(module, tensors)
        written = weights.flatten(variables)
    weights.write_tensors(target, written)
    return {
        "wrote": f"{target} ({'torchvision' if ours else 'cnn_jax'} names)",
        "classes": len(tensors[last]),
        "tensors": len(written),
        "parameters": sum(
            np.size(leaf)
            for key, leaf in weights.flatten(variables).items()
            if key.startswith("params/")
        ),
    }


def evaluate(
    name: str, source: str, config_file: str, data_dir: str
) -> dict[str, float]:
    """Test loss and error of converted weights.

    Args:
      name: torchvision's name of the network.
      source: variables that `convert` wrote, or a state_dict.
      config_file: a run's config; its network is replaced by ``name``.
      data_dir: where the config's data set is; '' for what the config says.

    Returns:
      'test_loss' (nats) and 'test_error' (a fraction).

    Raises:
      ConfigError: the config cannot be run, or is for another number of classes.
      ValueError: the tensors are not those of the network.
    """
    if not pathlib.Path(config_file).is_file():
        raise names.ConfigError(f"no config file {config_file!r}")
    config = runpy.run_path(config_file)["get_config"]().to_dict()
    model, fields = torchvision.NETS[name]
    config["model"] = {"name": model, **fields}
    if data_dir:
        config["dataset"]["data_dir"] = data_dir
    program = Program(config)
    tensors = weights.read_tensors(source)
    if any(key.startswith("params/") for key in tensors):
        variables = weights.unflatten(tensors)
    else:
        module = torchvision.create(name, num_classes=program.source.num_classes)
        variables = torchvision.from_state_dict(module, tensors)
    state = program.initial_state(0)
    loaded = state.replace(
        params=variables["params"], batch_stats=variables.get("batch_stats", {})
    )
    for found, expected in zip(
        jax.tree.leaves(loaded), jax.tree.leaves(state), strict=True
    ):
        if found.shape != expected.shape:
            raise names.ConfigError(
                f"{source}: a tensor is {found.shape}, {name} for the "
                f"{program.source.num_classes} classes of {config_file} has "
                f"{expected.shape}"
            )
    totals = program.evaluate(program.place(loaded), "test")
    return {f"test_{key}": value for key, value in totals.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help=", ".join(torchvision.NETS))
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--evaluate", metavar="CONFIG", default="")
    parser.add_argument("--data_dir", default="")
    words = parser.parse_args(argv)
    try:
        done = convert(words.network, words.source, words.target)
        if words.evaluate:
            done |= evaluate(
                words.network, words.source, words.evaluate, words.data_dir
            )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for key, value in done.items():
        print(
            f"{key:>12}: {value:,}" if isinstance(value, int) else f"{key:>12}: {value}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
