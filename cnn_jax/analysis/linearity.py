"""Relative change: how close the blocks of a network are to the identity.

He et al. (2015), section 3.1, hypothesise that the optimal function is closer to the
identity than to zero, so that a branch only has to learn a small change. This module
measures that change: the norm of (block output - input) over the norm of the input.
"""

import collections
import functools
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.analysis import blocks, layers
from cnn_jax.analysis.net import Batch, Variables


def relative_changes(
    model: nn.Module, variables: Variables, batches: Iterable[Batch]
) -> dict[str, float]:
    """Norm of (output - input) over the norm of the input, for each block.

    Args:
      model: the network, applied in evaluation mode.
      variables: 'params' and 'batch_stats'.
      batches: the images to average over.

    Returns:
      The mean ratio over images, by block name, in forward order. Blocks that change
      the shape have no such ratio and are left out. Images for which a block's input
      is all zero do not count for that block.
    """
    totals: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, sums in jax.device_get(_sums(model, variables, batch)).items():
            totals[name] = totals.get(name, 0.0) + np.asarray(sums, np.float64)
    return {
        name: float(ratio / count) if count else float("nan")
        for name, (ratio, count) in totals.items()
    }


@functools.partial(jax.jit, static_argnames="model")
def _sums(model: nn.Module, variables: Variables, batch: Batch) -> dict[str, Any]:
    """Sum of ratios and number of images, for each block."""
    found: dict[str, Any] = collections.OrderedDict()
    kinds = blocks.kinds_of(model)

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, kinds) and inputs.shape == output.shape:
            rows = inputs.reshape(len(inputs), -1).astype(jnp.float32)
            change = output.reshape(rows.shape).astype(jnp.float32) - rows
            size = jnp.linalg.norm(rows, axis=1)
            counts = (size > 0) & (batch["mask"] > 0)
            ratio = jnp.linalg.norm(change, axis=1) / jnp.where(size > 0, size, 1.0)
            found[layers.name_of(module)] = jnp.array(
                [jnp.where(counts, ratio, 0.0).sum(), counts.sum()]
            )

    layers.watch(model, variables, batch["image"], see)
    return found
