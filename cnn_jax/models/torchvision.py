"""Conversion between torchvision's weights and the variables of these networks.

Here a ``state_dict`` is a dict of NumPy arrays under torchvision's names; torch
itself is not needed. torchvision stores convolutions as OIHW and dense kernels as
(out, in), and flattens activations channels first. Its VGG nets with batch norm keep
the convolution biases, which batch norm subtracts again. They are folded into the
running mean on import and are zero on export.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models, names
from cnn_jax.models import layout, weights
from cnn_jax.models.alexnet import AlexNet
from cnn_jax.models.resnet import ResNet
from cnn_jax.models.vgg import STAGES, VGG

State = Mapping[str, np.ndarray]

# torchvision's name of a net, and the name and fields of the same net here.
NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "alexnet": ("alexnet_torchvision", {}),
    **{f"vgg{depth}": (f"vgg{depth}", {}) for depth in (11, 13, 16, 19)},
    **{f"vgg{n}_bn": (f"vgg{n}", {"batch_norm": True}) for n in (11, 13, 16, 19)},
    **{
        f"resnet{depth}": (f"resnet{depth}", {"bottleneck_stride": "3x3"})
        for depth in (18, 34, 50, 101, 152)
    },
}


class Link(NamedTuple):
    """A layer's names in this package and in torchvision."""

    ours: tuple[str, ...]
    theirs: str
    kind: Literal["conv", "dense", "norm"]
    # For a dense layer that reads flattened activations, their side; otherwise 1.
    side: int = 1
    # The batch norm that absorbs torchvision's convolution bias.
    folded_into: str = ""


def create(name: str, num_classes: int = 1000, **fields: Any) -> nn.Module:
    """The network that torchvision calls ``name``.

    Args:
      name: a key of `NETS`.
      num_classes: size of the output.
      **fields: further fields of the module.

    Returns:
      A network whose variables `from_state_dict` fills.

    Raises:
      ConfigError: unknown name or field.
    """
    ours, preset = names.resolve("torchvision net", name, NETS)
    return models.create(ours, num_classes=num_classes, **{**preset, **fields})


def from_state_dict(
    module: nn.Module, state: State, plan: Sequence[Link] = ()
) -> dict[str, Any]:
    """torchvision's tensors as the variables of a network.

    Args:
      module: an AlexNet, VGG or ResNet that torchvision also has.
      state: its state_dict as arrays.
      plan: layers under both names; defaults to `links`.

    Returns:
      ``{'params': ..., 'batch_stats': ...}`` (the latter if it has batch norm),
      float32 NumPy arrays.

    Raises:
      ConfigError: torchvision has no such network.
      ValueError: a tensor is missing, unknown, or of another shape.
    """
    plan = plan or links(module)
    check_tensors(module, plan, state)
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    shift: dict[str, np.ndarray] = {}
    for link in plan:
        get = {
            part: np.asarray(state[f"{link.theirs}.{part}"], np.float32)
            for part in _shapes_of(link)
            if f"{link.theirs}.{part}" in state
        }
        if link.kind == "norm":
            mean = get["running_mean"] - shift.get(link.theirs, np.float32(0))
            params = {"scale": get["weight"], "bias": get["bias"]}
            stats = {"mean": mean, "var": get["running_var"]}
            _put(variables["batch_stats"], link.ours, stats)
        elif link.kind == "conv":
            params = {"kernel": get["weight"].transpose(2, 3, 1, 0)}
            if link.folded_into:
                shift[link.folded_into] = get["bias"]
            elif "bias" in get:
                params["bias"] = get["bias"]
        else:
            units, side = get["weight"].shape[0], link.side
            maps = get["weight"].reshape(units, -1, side, side)
            kernel = maps.transpose(2, 3, 1, 0).reshape(-1, units)
            params = {"kernel": kernel, "bias": get["bias"]}
        _put(variables["params"], link.ours, params)
    if not variables["batch_stats"]:
        del variables["batch_stats"]
    return layout.stack(variables, module)


def to_state_dict(
    module: nn.Module, variables: Mapping[str, Any], plan: Sequence[Link] = ()
) -> dict[str, np.ndarray]:
    """A network's variables as torchvision's tensors.

    Args:
      module: an AlexNet, VGG or ResNet that torchvision also has.
      variables: its 'params' and, with batch norm, 'batch_stats'.
      plan: layers under both names; defaults to `links`.

    Returns:
      Arrays under torchvision's names, as its ``load_state_dict`` expects them.

    Raises:
      ConfigError: torchvision has no such network.
      ValueError: variables of another network.
    """
    state: dict[str, np.ndarray] = {}
    variables = layout.unroll(variables, module)
    for link in plan or links(module):
        params = _get(variables, "params", *link.ours)
        put = {}
        if link.kind == "norm":
            stats = _get(variables, "batch_stats", *link.ours)
            put = {
                "weight": params["scale"],
                "bias": params["bias"],
                "running_mean": stats["mean"],
                "running_var": stats["var"],
                "num_batches_tracked": np.zeros((), np.int64),
            }
        elif link.kind == "conv":
            put["weight"] = np.asarray(params["kernel"]).transpose(3, 2, 0, 1)
            if link.folded_into:
                put["bias"] = np.zeros(put["weight"].shape[0], np.float32)
            elif "bias" in params:
                put["bias"] = params["bias"]
        else:
            kernel, side = np.asarray(params["kernel"]), link.side
            units = kernel.shape[1]
            kernel = kernel.reshape(side, side, -1, units).transpose(3, 2, 0, 1)
            put = {"weight": kernel.reshape(units, -1), "bias": params["bias"]}
        for part, value in put.items():
            state[f"{link.theirs}.{part}"] = np.asarray(value)
    return state


def links(module: nn.Module) -> list[Link]:
    """Every layer of a network with its name in torchvision.

    Raises:
      ConfigError: torchvision has no such network.
    """
    if isinstance(module, AlexNet):
        return _alexnet(module)
    if isinstance(module, VGG):
        return _vgg(module)
    if isinstance(module, ResNet):
        return _resnet(module)
    raise names.ConfigError(
        f"torchvision has no {type(module).__name__}; choices: {', '.join(NETS)}"
    )


def _alexnet(module: AlexNet) -> list[Link]:
    require(
        "torchvision's AlexNet",
        module,
        towers=1,
        lrn=False,
        stem=(11, 4, 2),
        image_size=224,
    )
    _require_two_hidden(module)
    positions = zip((1, 2, 3, 4, 5), (0, 3, 6, 8, 10), strict=True)
    return [
        *(Link((f"conv{n}",), f"features.{at}", "conv") for n, at in positions),
        Link(("fc6",), "classifier.1", "dense", side=6),
        Link(("fc7",), "classifier.4", "dense"),
        Link(("fc8",), "classifier.6", "dense"),
    ]


def _vgg(module: VGG) -> list[Link]:
    if module.configuration == "C":
        raise names.ConfigError("torchvision has no VGG C; choices: A, B, D, E")
    require("torchvision's VGG", module, image_size=224)
    _require_two_hidden(module)
    plan, at = [], 0
    for stage, kernels in enumerate(STAGES[module.configuration], start=1):
        for index in range(1, len(kernels) + 1):
            norm = f"features.{at + 1}" if module.batch_norm else ""
            conv = (f"conv{stage}_{index}",)
            plan.append(Link(conv, f"features.{at}", "conv", folded_into=norm))
            if norm:
                plan.append(Link((f"bn{stage}_{index}",), norm, "norm"))
            at += 3 if norm else 2  # a ReLU follows
        at += 1  # the max-pool
    return [
        *plan,
        Link(("fc6",), "classifier.0", "dense", side=7),
        Link(("fc7",), "classifier.3", "dense"),
        Link(("fc8",), "classifier.6", "dense"),
    ]


def _resnet(module: ResNet) -> list[Link]:
    if module.block_name() not in ("basic", "bottleneck"):
        raise names.ConfigError(
            f"torchvision has no ResNet with {module.block_name()} blocks"
        )
    require(
        "torchvision's ResNet",
        module,
        layout="imagenet",
        shortcut="B",
        preactivation=False,
        layers_per_block=0,
    )
    if module.block_name() == "bottleneck":
        require("torchvision's ResNet", module, bottleneck_stride="3x3")
    return residual_links(module)


def residual_links(module: ResNet) -> list[Link]:
    """The layers of a ResNet, CIFAR's layout included, under torchvision's names.

    Args:
      module: a ResNet of basic or bottleneck blocks without pre-activation. Only
        shortcut B has layers.
    """
    plan = [Link(("stem_conv",), "conv1", "conv"), Link(("stem_bn",), "bn1", "norm")]
    block, channels = module.block_class(), module.stage_widths()[0]
    stages = zip(module.blocks_per_stage(), module.stage_widths(), strict=True)
    for stage, (size, width) in enumerate(stages, start=1):
        for index in range(size):
            ours = f"stage{stage}_block{index + 1}"
            theirs = f"layer{stage}.{index}"
            for layer in range(1, module.skipped_layers() + 1):
                plan += [
                    Link((ours, f"conv{layer}"), f"{theirs}.conv{layer}", "conv"),
                    Link((ours, f"bn{layer}"), f"{theirs}.bn{layer}", "norm"),
                ]
            outputs = width * block.expansion
            changes = channels != outputs or (stage > 1 and index == 0)
            if module.shortcut == "B" and changes:
                down = f"{theirs}.downsample"
                plan += [
                    Link((ours, "shortcut_conv"), f"{down}.0", "conv"),
                    Link((ours, "shortcut_bn"), f"{down}.1", "norm"),
                ]
            channels = outputs
    return [*plan, Link(("head",), "fc", "dense")]


def require(what: str, module: nn.Module, **fields: Any) -> None:
    """Reject a module with a field other than the published network's value."""
    for name, expected in fields.items():
        found = getattr(module, name)
        if (tuple(found) if isinstance(expected, tuple) else found) != expected:
            raise names.ConfigError(
                f"{what} has {name} {expected!r}, but this net {found!r}"
            )


def _require_two_hidden(module: AlexNet | VGG) -> None:
    """Reject a module whose number of dense layers differs from torchvision's."""
    if len(module.hidden) != 2:
        raise names.ConfigError(
            f"torchvision's {type(module).__name__} has 2 hidden dense layers, "
            f"but this net {len(module.hidden)}"
        )


def _shapes_of(link: Link) -> tuple[str, ...]:
    """Names of the tensors that torch stores for a layer."""
    if link.kind == "norm":
        return ("weight", "bias", "running_mean", "running_var")
    return ("weight", "bias")


def check_tensors(module: nn.Module, plan: Sequence[Link], state: State) -> None:
    """Reject a state_dict whose names or shapes do not match the network.

    Args:
      module: the network.
      plan: its layers under both names.
      state: the tensors.

    Raises:
      ValueError: a tensor is missing, unknown, or of another shape.
    """
    first = f"{plan[0].theirs}.weight"
    four = first in state and np.ndim(state[first]) == 4
    zeros = zero_variables(module, state[first].shape[1] if four else 3)
    found, expected = (
        {k: np.shape(v) for k, v in those.items() if not k.endswith("batches_tracked")}
        for those in (state, to_state_dict(module, zeros, plan))
    )
    weights.check_shapes(
        f"a state_dict of this {type(module).__name__}", found, expected
    )


def zero_variables(module: nn.Module, channels: int) -> dict[str, Any]:
    """Zeros in the form of a network's variables; they take no memory.

    Args:
      module: the network.
      channels: of its images.
    """
    image = jnp.zeros((1, 224, 224, channels))
    shapes = jax.eval_shape(
        lambda key: module.init(key, image, train=False), jax.random.key(0)
    )
    return jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set the entry of a nested dict."""
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _get(tree: Mapping[str, Any], *path: str) -> Any:
    """The entry of a nested dict."""
    for part in path:
        if part not in tree:
            raise ValueError(
                f"variables of another network: {'/'.join(path)!r} is missing"
            )
        tree = tree[part]
    return tree
