"""The blocks of a network, and networks with gated blocks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.analysis import layers
from cnn_jax.analysis.net import Variables
from cnn_jax.models.blocks import Block

Images = Float[Array, "batch height width channels"]
Gates = Float[Array, " blocks"]


class Site(NamedTuple):
    """A block and its position in the network.

    Attributes:
      name: path of the module.
      residual: whether it has a shortcut of `Block`.
      same_shape: whether its output has the shape of its input.
      shapes: shapes of its parameters; blocks with equal shapes are interchangeable.
    """

    name: str
    residual: bool
    same_shape: bool
    shapes: tuple[tuple[int, ...], ...]

    @property
    def removable(self) -> bool:
        """Whether the network still has a path once the block's layers are removed."""
        return self.residual or self.same_shape


def sites(
    model: nn.Module, variables: Variables, image: tuple[int, int, int]
) -> list[Site]:
    """The blocks of a network, in forward order.

    Args:
      model: the network.
      variables: 'params' and 'batch_stats'.
      image: (height, width, channels).

    Returns:
      A site for each instance of `cnn_jax.models.blocks.Block` or of the network's
      own block class.

    Raises:
      ValueError: the network has none.
    """
    found: list[Site] = []
    kinds = kinds_of(model)

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, kinds):
            leaves = jax.tree.leaves(module.variables["params"])
            found.append(
                Site(
                    layers.name_of(module),
                    _has_shortcut(module),
                    inputs.shape == output.shape,
                    tuple(leaf.shape for leaf in leaves),
                )
            )

    jax.eval_shape(
        lambda x: layers.watch(model, variables, x, see)[0],
        jax.ShapeDtypeStruct((1, *image), jnp.float32),
    )
    if not found:
        raise ValueError(f"{type(model).__name__} has no blocks to analyse")
    return found


def without(
    model: nn.Module, variables: Variables, images: Images, keep: Gates
) -> Float[Array, "batch classes"]:
    """Outputs of a network with some blocks removed, in evaluation mode.

    Removing a residual block removes its branch and keeps its shortcut (Veit et al.
    2016, section 4.1). Removing a plain block that keeps the shape removes the whole
    block. Plain blocks that change the shape are never removed.

    Args:
      model: the network.
      variables: 'params' and 'batch_stats'.
      images: normalised images.
      keep: 1 or 0 for each block, in the order of `sites`.

    Returns:
      The network's outputs.
    """
    kinds, place = kinds_of(model), _Counter()

    def interceptor(next_method, args, kwargs, context):
        module: Any = context.module
        if not isinstance(module, kinds):
            return next_method(*args, **kwargs)
        kept = keep[place.of(module)] > 0
        output = next_method(*args, **kwargs)
        if context.method_name == "branch" and _has_shortcut(module):
            return jnp.where(kept, output, jnp.zeros_like(output))
        passes = not _has_shortcut(module) and args[0].shape == output.shape
        if context.method_name == "__call__" and passes:
            return jnp.where(kept, output, args[0])
        return output

    with nn.intercept_methods(interceptor):
        outputs: Any = model.apply(variables, images, train=False)
    return outputs


def along_paths(
    model: nn.Module, variables: Variables, images: Images, through: Gates
) -> Float[Array, "batch classes"]:
    """Outputs whose gradient flows along one path through a residual network.

    The values equal the network's outputs in evaluation mode. In the backward pass, a
    block propagates the gradient only through its branch if ``through`` is 1, and only
    through its shortcut if it is 0 (Veit et al. 2016, section 5).

    Args:
      model: the network; all its blocks must be residual.
      variables: 'params' and 'batch_stats'.
      images: normalised images.
      through: 1 or 0 for each block, in the order of `sites`.

    Returns:
      The network's outputs.
    """
    kinds, place = kinds_of(model), _Counter()

    def interceptor(next_method, args, kwargs, context):
        output = next_method(*args, **kwargs)
        module: Any = context.module
        if isinstance(module, kinds):
            gate = through[place.of(module)]
            if context.method_name == "branch":
                return jnp.where(gate > 0, output, jax.lax.stop_gradient(output))
            if context.method_name == "shortcut_of":
                return jnp.where(gate > 0, jax.lax.stop_gradient(output), output)
        return output

    with nn.intercept_methods(interceptor):
        outputs: Any = model.apply(variables, images, train=False)
    return outputs


def kinds_of(model: nn.Module) -> tuple[type[nn.Module], ...]:
    """The module classes that count as blocks of a network."""
    block_class: Callable[[], type[nn.Module]] | None = getattr(
        model, "block_class", None
    )
    return (Block, block_class()) if block_class else (Block,)


class _Counter:
    """Numbers blocks by the order of their first call."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, ...], int] = {}

    def of(self, module: nn.Module) -> int:
        return self.seen.setdefault(module.path, len(self.seen))


def _has_shortcut(module: nn.Module) -> bool:
    return isinstance(module, Block) and module.shortcut != "none"
