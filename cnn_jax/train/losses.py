"""Losses: (outputs, batch) to the loss of each example, by name."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def softmax_cross_entropy(
    outputs: Float[Array, "batch classes"],
    batch: Mapping[str, Any],
    label_smoothing: float = 0.0,
) -> Float[Array, " batch"]:
    """Cross entropy of the softmax of ``outputs`` against the labels, in nats.

    Args:
      outputs: logits.
      batch: its 'label' holds class indices, int32 (batch,).
      label_smoothing: share of the target spread over all classes (Szegedy et
        al. 2016, section 7).

    Returns:
      Loss of each example, float32.
    """
    logits = outputs.astype(jnp.float32)
    target = jax.nn.one_hot(batch["label"], logits.shape[-1])
    target = optax.smooth_labels(target, label_smoothing)
    return optax.softmax_cross_entropy(logits, target)


LOSSES = {"softmax_cross_entropy": softmax_cross_entropy}
