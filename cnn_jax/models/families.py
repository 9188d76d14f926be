"""Published PyTorch weights: the network that each family's names refer to.

    resnet50, vgg16_bn, ...      torchvision (see `cnn_jax.models.torchvision`)
    timm/resnet50                timm: the same tensors under the same names
    chenyaofo/cifar10_resnet20   pytorch-cifar-models: 32x32 images, option B
    akamaster/resnet20           pytorch_resnet_cifar10: the paper's nets, option A

akamaster's option A pads with zeros on both sides of the input's channels; this
package pads after them. The channels of later stages therefore have another order,
and so do the tensors that read or write them. The network function is the same.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from cnn_jax import models, names
from cnn_jax.models import torchvision
from cnn_jax.models.layers import BatchNorm
from cnn_jax.models.resnet import ResNet

Numbers = tuple[float, float, float]

IMAGENET: tuple[Numbers, Numbers] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10: tuple[Numbers, Numbers] = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR100: tuple[Numbers, Numbers] = ((0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761))


class Published(NamedTuple):
    """A network whose weights are published.

    Attributes:
      model: its name and fields, as a config's section.
      dataset: its training set: 'cifar10', 'cifar100' or 'imagenet2012'.
      mean: mean of each channel, subtracted from pixels in units of 0..1.
      std: standard deviation of each channel, the divisor.
    """

    model: dict[str, Any]
    dataset: str
    mean: Numbers
    std: Numbers


def _table() -> dict[str, Published]:
    table = {
        name: Published({"name": ours, **fields}, "imagenet2012", *IMAGENET)
        for name, (ours, fields) in torchvision.NETS.items()
    }
    for name in list(table):
        if name.startswith("resnet"):
            table[f"timm/{name}"] = table[name]
    for depth in (20, 32, 44, 56):
        model = {"name": "cifar_resnet", "depth": depth, "shortcut": "B"}
        for dataset, constants in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
            name = f"chenyaofo/{dataset}_resnet{depth}"
            table[name] = Published(model, dataset, *constants)
    for depth in (20, 32, 44, 56, 110, 1202):
        model = {"name": "cifar_resnet", "depth": depth, "shortcut": "A"}
        table[f"akamaster/resnet{depth}"] = Published(model, "cifar10", *IMAGENET)
    return table


NETS = _table()


def create(name: str, num_classes: int, **fields: Any) -> nn.Module:
    """The network that a family calls ``name``.

    Args:
      name: a key of `NETS`.
      num_classes: size of the output.
      **fields: further fields of the module.

    Returns:
      A network whose variables `read` returns.

    Raises:
      ConfigError: unknown name or field.
    """
    found = resolve(name)
    return models.create(num_classes=num_classes, **{**found.model, **fields})


def resolve(name: str) -> Published:
    """The network published under a name.

    Raises:
      ConfigError: unknown name, or a net without a counterpart here.
    """
    if name.startswith("timm/") and name not in NETS:
        known = ", ".join(key for key in NETS if key.startswith("timm/"))
        raise names.ConfigError(
            f"{name!r} differs from torchvision's ResNets in its stem or blocks; "
            f"choices: {known}"
        )
    return names.resolve("published net", name, NETS)


def read(name: str, module: nn.Module, state: torchvision.State) -> dict[str, Any]:
    """A family's tensors as the variables of a network.

    Args:
      name: a key of `NETS`.
      module: from `create`.
      state: its state_dict as arrays.

    Returns:
      ``{'params': ..., 'batch_stats': ...}``, float32 NumPy arrays.

    Raises:
      ConfigError: a net with another stem.
      ValueError: a tensor is missing, unknown, or of another shape.
    """
    if "conv1.0.weight" in state:  # timm's resnet50d, resnet50s, resnet50t
        raise names.ConfigError(
            f"not the weights of {name}: their stem has three 3x3 convolutions, which "
            "no network of this package has"
        )
    if not _is_cifar(module):
        return torchvision.from_state_dict(module, state)
    assert isinstance(module, ResNet)
    state = {_renamed(key, "linear.", "fc."): value for key, value in state.items()}
    plan = torchvision.residual_links(module)
    torchvision.check_tensors(module, plan, state)
    if module.shortcut == "A":
        state = _reordered(module, state)
    return torchvision.from_state_dict(module, state, plan)


def write(
    name: str, module: nn.Module, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """A network's variables as the family's tensors: the inverse of `read`.

    Args:
      name: a key of `NETS`.
      module: from `create`, or of the variables' own config.
      variables: its 'params' and 'batch_stats'.

    Returns:
      Arrays under the family's names, as its ``load_state_dict`` expects them.

    Raises:
      ConfigError: the family has no such network.
      ValueError: variables of another network.
    """
    check(name, module)
    if not _is_cifar(module):
        return torchvision.to_state_dict(module, variables)
    assert isinstance(module, ResNet)
    plan = torchvision.residual_links(module)
    state = torchvision.to_state_dict(module, variables, plan)
    if module.shortcut != "A":
        return state
    state = _reordered(module, state, back=True)
    return {_renamed(key, "fc.", "linear."): value for key, value in state.items()}


def head(name: str) -> str:
    """Name of the last layer's bias, whose length is the number of classes."""
    if name.startswith("akamaster/"):
        return "linear.bias"
    return "fc.bias" if "resnet" in name else "classifier.6.bias"


def check(name: str, module: nn.Module) -> None:
    """Refuse a network that differs from the published one.

    Networks with the same variables may differ in a stride, a shortcut, a block or the
    epsilon of batch norm.

    Args:
      name: a key of `NETS`.
      module: the network.

    Raises:
      ConfigError: it differs.
    """
    if not _is_cifar(module):
        torchvision.links(module)
    elif isinstance(module, ResNet) and module.block_name() != "basic":
        raise names.ConfigError(
            f"{name} has basic blocks, but this net has {module.block_name()!r}"
        )
    if isinstance(module, ResNet):
        shortcut = resolve(name).model.get("shortcut", "B")
        torchvision.require(name, module, shortcut=shortcut, stochastic_depth=0.0)
    epsilon = getattr(getattr(module, "norm", BatchNorm)(), "epsilon", None)
    if epsilon != BatchNorm.epsilon:
        raise names.ConfigError(
            f"{name} has batch norm with epsilon {BatchNorm.epsilon}, but this net "
            f"{epsilon}"
        )


def first_layer(module: nn.Module) -> tuple[str, ...]:
    """Path to the variables of a published network's first convolution."""
    if isinstance(module, ResNet):
        return torchvision.residual_links(module)[0].ours
    return torchvision.links(module)[0].ours


def _is_cifar(module: nn.Module) -> bool:
    return isinstance(module, ResNet) and module.layout == "cifar"


def _renamed(key: str, old: str, new: str) -> str:
    return new + key.removeprefix(old) if key.startswith(old) else key


def _orders(module: ResNet) -> list[np.ndarray]:
    """For each stage, akamaster's index of each channel in this package's order."""
    widths = module.stage_widths()
    orders = [np.arange(widths[0])]
    for width in widths[1:]:
        kept = width // 4 + orders[-1]
        zeros = np.setdiff1d(np.arange(width), kept)
        orders.append(np.concatenate([kept, zeros]))
    return orders


def _reordered(
    module: ResNet, state: torchvision.State, back: bool = False
) -> dict[str, np.ndarray]:
    """Tensors with the channels between blocks in the other family's order."""
    state = dict(state)
    orders = _orders(module)

    def put(name: str, axis: int, order: np.ndarray) -> None:
        places = np.argsort(order) if back else order
        state[name] = np.take(np.asarray(state[name]), places, axis)

    before = orders[0]
    stages = zip(module.blocks_per_stage(), orders, strict=True)
    for stage, (size, order) in enumerate(stages, start=1):
        for block in range(size):
            at = f"layer{stage}.{block}"
            put(f"{at}.conv1.weight", 1, before)
            put(f"{at}.conv2.weight", 0, order)
            for part in ("weight", "bias", "running_mean", "running_var"):
                put(f"{at}.bn2.{part}", 0, order)
            before = order
    put("fc.weight", 1, before)
    return state
