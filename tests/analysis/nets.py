"""Networks of eight layers and a batch, for tests of analyses."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models

IMAGE = (4, 4, 1)


def build(family: str = "residual", **fields: Any) -> tuple[Any, Any]:
    """A net with random batch-norm scales and statistics.

    It is alive: every output differs between images.
    """
    net, variables = _build(family, tuple(fields.items()))
    return net, jax.tree.map(lambda leaf: leaf, variables)  # dictionaries of its own


@functools.cache  # many tests want the same net
def _build(family: str, given: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    shortcut = "none" if family == "plain" else "A"
    fields = {"depth": 8, "widths": (2, 2, 4), "shortcut": shortcut, **dict(given)}
    net = models.create("cifar_resnet", 3, **fields)
    image = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    variables = net.lazy_init(jax.random.key(1), image, train=False)
    rng = np.random.default_rng(5)

    def vary(leaf: Any) -> Any:
        if leaf.ndim > 1:
            return leaf
        return jnp.asarray(leaf + rng.uniform(0.1, 0.5, leaf.shape), jnp.float32)

    variables = jax.tree.map(vary, variables)
    outputs = jax.jit(functools.partial(net.apply, train=False))(
        variables, batch()["image"]
    )
    assert outputs.std(0).min() > 1e-2, "a dead net: tests of it could not fail"
    return net, variables


def batch(size: int = 4) -> dict[str, jax.Array]:
    """Random images of three classes; the last one is padding."""
    rng = np.random.default_rng(1)
    return {
        "image": jnp.array(rng.normal(size=(size, *IMAGE)), jnp.float32),
        "label": jnp.arange(size) % 3,
        "mask": (jnp.arange(size) < size - 1).astype(jnp.float32),
    }
