"""Sizes of the networks: ``python -m cnn_jax.models [NAME [--field=value ...]]``.

Without a name, prints every network of the table with its input size, weight layers,
trainable parameters and multiply-accumulates (MACs) per image. With a name, prints
the layers of that network. ``--field=value`` sets a field of its module;
``--image_size``, ``--channels`` and ``--num_classes`` set the task.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from rich import box
from rich.console import Console
from rich.table import Table

from cnn_jax import models, names
from cnn_jax.models.summary import Summary, summarize

USAGE = "usage: python -m cnn_jax.models [NAME [--field=value ...]]"


def summary_of(name: str, fields: dict[str, Any]) -> Summary:
    """The summary of a network, built-in or user-defined.

    Args:
      name: a key of the table, or ``package.module:Class``.
      fields: fields of its module, and the task's image_size, channels and
        num_classes, which default to the paper's.

    Returns:
      Layers and totals.

    Raises:
      ConfigError: unknown name or field, or an invalid value.
    """
    fields = dict(fields)
    net = models.NETS.get(name, models.NetSpec(nn.Module, 224, 3, 1000))
    task = {
        key: fields.pop(key, getattr(net, key))
        for key in ("image_size", "channels", "num_classes")
    }
    for key, value in task.items():
        if not isinstance(value, int) or value < 1:
            raise names.ConfigError(f"{key} must be a positive int, got {value!r}")
    target = names.resolve("model", name, models.TABLE)
    if "image_size" in names.parameters(target):
        fields["image_size"] = task["image_size"]
    module = models.create(name, num_classes=task["num_classes"], **fields)
    return summarize(module, (task["image_size"],) * 2 + (task["channels"],))


def main(arguments: Sequence[str]) -> None:
    """Print the table of networks, or the layers of one."""
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "name", nargs="?", default="", help="network to describe (default: list all)"
    )
    parser.add_argument(
        "--FIELD", metavar="VALUE", help="field of the network or of its task"
    )
    values, words = parser.parse_known_args(arguments)
    if words and not values.name:
        raise names.ConfigError(f"expected a network's name, got {words[0]!r}; {USAGE}")
    for word in words:
        if not word.startswith("--") or "=" not in word:
            raise names.ConfigError(f"expected --field=value, got {word!r}; {USAGE}")
    if not values.name:
        return _print(_networks_table())
    fields = names.parse_fields([word[2:] for word in words])
    return _print(_layers_table(summary_of(values.name, fields)))


def _networks_table() -> Table:
    """One row per network, at the size of its paper."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("network")
    for column in ("input", "weight layers", "parameters", "MACs"):
        table.add_column(column, justify="right")
    for name in models.NETS:
        found = summary_of(name, {})
        table.add_row(
            name,
            _by(found.input),
            str(found.weight_layers),
            f"{found.parameters:,}",
            f"{found.macs:,}",
        )
    return table


def _layers_table(found: Summary) -> Table:
    """One row per layer, and the totals."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("layer", footer=f"{found.weight_layers} weight layers")
    table.add_column("kind")
    table.add_column("output", footer=f"input {_by(found.input)}", justify="right")
    table.add_column("parameters", footer=f"{found.parameters:,}", justify="right")
    table.add_column("MACs", footer=f"{found.macs:,}", justify="right")
    for layer in found.layers:
        table.add_row(
            layer.name,
            layer.kind,
            _by(layer.output),
            f"{layer.parameters:,}",
            f"{layer.macs:,}",
        )
    return table


def _by(shape: tuple[int, ...]) -> str:
    """(28, 28, 6) as '28 x 28 x 6'."""
    return " x ".join(map(str, shape))


def _print(table: Table) -> None:
    """Print at the terminal's width; never wrap lines in a file or a pipe."""
    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
