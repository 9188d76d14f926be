"""The table of networks, and `create`, which builds one by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn

from cnn_jax import names
from cnn_jax.models.resnet import ResNet

TABLE: dict[str, Callable[..., nn.Module]] = {
    "cifar_resnet": partial(ResNet, layout="cifar", shortcut="A"),
    "cifar_plain": partial(ResNet, layout="cifar", shortcut="none"),
}
for _depth in (18, 34, 50, 101, 152):
    _block = "basic" if _depth < 50 else "bottleneck"
    _net = partial(ResNet, layout="imagenet", depth=_depth, block=_block)
    TABLE[f"resnet{_depth}"] = partial(_net, shortcut="B")
    TABLE[f"plain{_depth}"] = partial(_net, shortcut="none")


def create(name: str, num_classes: int, **fields: Any) -> nn.Module:
    """A network of the table, or of your own.

    Args:
      name: a key of `TABLE`, or ``package.module:Class``.
      num_classes: size of the output.
      **fields: dataclass fields of the network's module.

    Returns:
      A linen module; ``module.apply(variables, images, train=...)`` gives logits.

    Raises:
      ConfigError: unknown name or field, wrong type, or a net that cannot be.
    """
    return names.build(
        "model", {"name": name, **fields}, TABLE, num_classes=num_classes
    )
