"""The layers of a network, in the order of computation.

Calls of modules are observed through linen's `intercept_methods`. This works for any
network, including user-defined ones, without code in the network. Layouts that scan
over blocks hide them: convert to the unrolled layout first.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.analysis.net import Variables

See = Callable[[nn.Module, Any, Any], None]


def watch(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "batch height width channels"],
    see: See,
    train: bool = False,
) -> tuple[Any, Any]:
    """Apply a network and report every module call.

    Args:
      model: the network.
      variables: 'params' and 'batch_stats'.
      images: normalised images.
      see: called with (module, first argument, output) after each call, inner modules
        before the modules that contain them.
      train: passed to ``model.apply``.

    Returns:
      The network's outputs, and the batch statistics after the call.
    """

    begun = False

    def interceptor(next_method, args, kwargs, context):
        nonlocal begun
        # A module applied unbound inside another counts as part of the other.
        part = begun and not context.module.path
        begun = True
        output = next_method(*args, **kwargs)
        if context.method_name == "__call__" and not part:
            see(context.module, args[0], output)
        return output

    with nn.intercept_methods(interceptor):
        outputs, changed = model.apply(
            variables, images, train=train, mutable=["batch_stats"]
        )
    return outputs, changed.get("batch_stats", {})


def name_of(module: nn.Module) -> str:
    """Path of a bound module in its network, such as 'stage1_block1/conv1'."""
    return "/".join(module.path)


def kernel_of(module: nn.Module) -> tuple[str, Any] | None:
    """Name and value of a module's weights: its parameter with two or more axes.

    Biases and normalisation scales have one axis and do not count as weights.
    """
    for name, value in module.variables.get("params", {}).items():
        if not isinstance(value, dict) and value.ndim >= 2:
            return name, value
    return None


def weight_layers(
    model: nn.Module, variables: Variables, image: tuple[int, ...]
) -> dict[str, tuple[str, ...]]:
    """The layers with weights, in forward order.

    Args:
      model: the network.
      variables: 'params' and 'batch_stats'.
      image: (height, width, channels).

    Returns:
      Path of each layer's weights in 'params', by layer name. A projection comes
      after its block's branch, in the order of computation.
    """
    found: dict[str, tuple[str, ...]] = {}

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        del inputs, output
        own = kernel_of(module)
        if own is not None:
            found.setdefault(name_of(module), (*module.path, own[0]))

    jax.eval_shape(
        lambda x: watch(model, variables, x, see)[0],
        jax.ShapeDtypeStruct((1, *image), jnp.float32),
    )
    return found


def pick(tree: Any, path: tuple[str, ...]) -> Any:
    """The entry of nested mappings at a path."""
    for key in path:
        tree = tree[key]
    return tree
