"""Convert weights between torchvision and this package.

    python -m experiments.convert resnet50 resnet50.safetensors mine.safetensors
    python -m experiments.convert resnet50 mine.safetensors back.safetensors

The network goes by torchvision's name. The source is a state_dict, as
safetensors or (where torch is installed) a .pth file; or variables that this
command wrote, which it turns back. The target is safetensors.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn_jax import names
from cnn_jax.models import torchvision, weights


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help=", ".join(torchvision.NETS))
    parser.add_argument("source")
    parser.add_argument("target")
    words = parser.parse_args(argv)
    try:
        done = convert(words.network, words.source, words.target)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for key, value in done.items():
        print(
            f"{key:>12}: {value:,}" if isinstance(value, int) else f"{key:>12}: {value}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
