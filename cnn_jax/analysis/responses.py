"""Layer responses (He et al. 2015, section 4.2 and figure 7).

The response of a layer is its output after batch norm and before the non-linearity
and the addition. Its standard deviation measures how strongly the layer acts. The
paper finds smaller responses in residual nets than in their plain counterparts, and
smaller ones in deeper residual nets.
"""

import collections
import functools
import math
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.analysis import layers
from cnn_jax.analysis.net import Batch, Variables


def responses(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "batch height width channels"],
) -> dict[str, Array]:
    """Response of every spatial convolution (3x3 in the paper), in forward order.

    Args:
      model: the network, applied in evaluation mode.
      variables: 'params' and 'batch_stats'.
      images: normalised images.

    Returns:
      Responses by layer name: the output of the normalisation that follows the layer,
      or the layer's own output if none follows (the last layer of a pre-activation
      block). 1x1 convolutions are left out, as in the paper.
    """
    found: dict[str, Array] = {}
    last: dict[str, Any] = {"name": "", "output": None}

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        own = layers.kernel_of(module)
        # A kernel is (height, width, ...), in LeNet-5's C3 by connection.
        if own is not None and own[1].ndim > 2 and math.prod(own[1].shape[:2]) > 1:
            last.update(name=layers.name_of(module), output=output)
            found[last["name"]] = output
        elif inputs is last["output"] and "scale" in module.variables.get("params", {}):
            found[last["name"]] = output

    layers.watch(model, variables, images, see)
    return found


def standard_deviations(
    model: nn.Module, variables: Variables, batches: Iterable[Batch]
) -> dict[str, float]:
    """Standard deviation of each layer's response over images, pixels and channels.

    Args:
      model: the network, applied in evaluation mode.
      variables: 'params' and 'batch_stats'.
      batches: the images; the paper does not state which, here the training set.

    Returns:
      Standard deviations by layer name, in forward order.
    """
    totals: dict[str, tuple[float, float, float]] = {}
    for batch in batches:
        for name, moments in jax.device_get(_moments(model, variables, batch)).items():
            totals[name] = _merge(totals.get(name, (0.0, 0.0, 0.0)), moments)
    return {
        name: math.sqrt(square / count) for name, (count, _, square) in totals.items()
    }


@functools.partial(jax.jit, static_argnames="model")
def _moments(model: nn.Module, variables: Variables, batch: Batch) -> dict[str, Any]:
    """Count, mean and sum of squared deviations of each response over real images."""
    # A jitted function sorts the keys of a dict, but not of an OrderedDict.
    found = collections.OrderedDict()
    for name, response in responses(model, variables, batch["image"]).items():
        rows = response.astype(jnp.float32).reshape(len(response), -1)
        mask = batch["mask"][:, None]
        count = mask.sum() * rows.shape[1]
        mean = (rows * mask).sum() / count
        found[name] = (count, mean, (jnp.square(rows - mean) * mask).sum())
    return found


def _merge(one: Any, other: Any) -> tuple[float, float, float]:
    """Merge the moments of two sets (Chan, Golub and LeVeque 1979), in float64."""
    (n, mean, square), (m, mean_other, square_other) = one, map(float, other)
    total = n + m
    difference = mean_other - mean
    return (
        total,
        mean + difference * m / total,
        square + square_other + difference**2 * n * m / total,
    )
