"""The tables of networks, and `create`, which builds one by name."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn

from cnn_jax import names
from cnn_jax.models.alexnet import AlexNet
from cnn_jax.models.gtn import OverSegmentation, SpaceDisplacement
from cnn_jax.models.layers import norm_of
from cnn_jax.models.lenet import LeNet5
from cnn_jax.models.nin import NIN
from cnn_jax.models.resnet import ResNet
from cnn_jax.models.vgg import VGG


class NetSpec(NamedTuple):
    """A network and the size of its paper's images and output."""

    module: Callable[..., nn.Module]
    image_size: int
    channels: int
    num_classes: int


NETS: dict[str, NetSpec] = {
    "lenet5": NetSpec(LeNet5, 32, 1, 10),
    "lenet5_modern": NetSpec(
        partial(
            LeNet5, activation="relu", subsampling="max", c3="dense", output="linear"
        ),
        image_size=32,
        channels=1,
        num_classes=10,
    ),
    "alexnet": NetSpec(AlexNet, 227, 3, 1000),
    "alexnet_single": NetSpec(partial(AlexNet, towers=1), 227, 3, 1000),
    "alexnet_torchvision": NetSpec(
        partial(
            AlexNet,
            towers=1,
            widths=(64, 192, 384, 256, 256),
            image_size=224,
            stem=(11, 4, 2),
            lrn=False,
            dropout_at="input",
            initializer="he",
        ),
        image_size=224,
        channels=3,
        num_classes=1000,
    ),
    "vgg11": NetSpec(partial(VGG, configuration="A"), 224, 3, 1000),
    "vgg13": NetSpec(partial(VGG, configuration="B"), 224, 3, 1000),
    "vgg16_c": NetSpec(partial(VGG, configuration="C"), 224, 3, 1000),
    "vgg16": NetSpec(partial(VGG, configuration="D"), 224, 3, 1000),
    "vgg19": NetSpec(partial(VGG, configuration="E"), 224, 3, 1000),
    "nin_cifar": NetSpec(partial(NIN, layout="cifar"), 32, 3, 10),
    "nin_imagenet": NetSpec(partial(NIN, layout="imagenet"), 224, 3, 1000),
    "cifar_resnet": NetSpec(partial(ResNet, layout="cifar", shortcut="A"), 32, 3, 10),
    "cifar_plain": NetSpec(partial(ResNet, layout="cifar", shortcut="none"), 32, 3, 10),
}
for _depth in (18, 34, 50, 101, 152):
    _block = "basic" if _depth < 50 else "bottleneck"
    _net = partial(ResNet, layout="imagenet", depth=_depth, block=_block)
    NETS[f"resnet{_depth}"] = NetSpec(partial(_net, shortcut="B"), 224, 3, 1000)
    NETS[f"plain{_depth}"] = NetSpec(partial(_net, shortcut="none"), 224, 3, 1000)

TABLE: dict[str, Callable[..., nn.Module]] = {
    **{name: net.module for name, net in NETS.items()},
    # These output recognition graphs, not logits.
    "gtn": OverSegmentation,
    "sdnn": SpaceDisplacement,
}


def create(name: str, num_classes: int, **fields: Any) -> nn.Module:
    """Build a network by name.

    Args:
      name: a key of `TABLE`, or ``package.module:Class``.
      num_classes: size of the output.
      **fields: dataclass fields of the network's module; ``norm`` may be a name,
        or a section with a name and fields (see `cnn_jax.models.layers.norm_of`).

    Returns:
      A linen module; ``module.apply(variables, images, train=...)`` returns logits.

    Raises:
      ConfigError: unknown name or field, wrong type, or invalid architecture.
    """
    if isinstance(fields.get("norm"), str | Mapping):
        fields["norm"] = norm_of(fields["norm"])
    return names.build(
        "model", {"name": name, **fields}, TABLE, num_classes=num_classes
    )
