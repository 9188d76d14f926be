"""Variables drawn with NumPy, because initialisers take seconds each to compile."""

import jax
import jax.numpy as jnp
import numpy as np


def shapes(module, *image):
    """Abstract variables of a net for images (height, width, channels)."""
    key, images = jax.random.key(0), jnp.zeros((1, *image))
    return jax.eval_shape(lambda: module.init(key, images, train=False))


def variables(module, *image, seed=0):
    """Fan-in kernels, and non-trivial biases and statistics."""
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        own = path[-1].key
        if own == "kernel":
            value = random.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape)
        elif own in ("scale", "var"):
            value = random.uniform(0.5, 2.0, leaf.shape)
        else:
            value = random.normal(0, 0.1, leaf.shape)
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(module, *image))


def images(*shape, seed=0):
    """Normally distributed pixels."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
