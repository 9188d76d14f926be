"""Losses by name: (outputs, batch) to per-example losses.

A loss whose outputs are not class scores has an attribute ``errors``: a function
(outputs, batch) to 1 for each wrong example, else 0.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cnn_jax import names
from cnn_jax.training.strings import string_loss


def softmax_cross_entropy(
    outputs: Float[Array, "batch classes"],
    batch: Mapping[str, Any],
    label_smoothing: float = 0.0,
) -> Float[Array, " batch"]:
    """Softmax cross entropy against the labels, in nats.

    Args:
      outputs: logits.
      batch: 'label' holds class indices, int32 (batch,).
      label_smoothing: share of the target distribution spread over all classes
        (Szegedy et al. 2016, section 7).

    Returns:
      Loss of each example, float32.

    Raises:
      ConfigError: label_smoothing is not in [0, 1].
    """
    if not 0 <= label_smoothing <= 1:
        raise names.ConfigError(
            f"loss.label_smoothing must be in [0, 1], got {label_smoothing}"
        )
    logits = outputs.astype(jnp.float32)
    target = jax.nn.one_hot(batch["label"], logits.shape[-1])
    target = optax.smooth_labels(target, label_smoothing)
    return optax.softmax_cross_entropy(logits, target)


def map_loss(
    outputs: Float[Array, "batch classes"], batch: Mapping[str, Any], j: float
) -> Float[Array, " batch"]:
    """LeNet-5's discriminative criterion (LeCun et al. 1998, equation 9).

    ``E = y[label] + log(exp(-j) + sum_i exp(-y_i))`` lowers the penalty of the label
    and raises the others, except those far above ``j``, the penalty of a "rubbish"
    class.

    Args:
      outputs: negated penalties ``-y_i``, the outputs of LeNet-5's RBF layer.
      batch: 'label' holds class indices, int32 (batch,).
      j: the positive constant; the paper does not give its value.

    Returns:
      Loss of each example in nats, float32.

    Raises:
      ConfigError: j is not positive.
    """
    if not 0 < j < math.inf:
        raise names.ConfigError(f"loss.j {j} is not positive")
    outputs = outputs.astype(jnp.float32)
    total = jnp.logaddexp(jax.nn.logsumexp(outputs, axis=-1), jnp.float32(-j))
    label = jnp.take_along_axis(outputs, batch["label"][:, None], axis=-1)
    return total - label[:, 0]


LOSSES: dict[str, Callable[..., Any]] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "map": map_loss,
    "strings": string_loss,
}
