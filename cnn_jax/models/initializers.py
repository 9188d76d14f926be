"""Initial weights, drawn on the host from JAX keys.

NumPy draws them (Philox, keyed by the bits of the JAX key), so that initial weights
are the same on every backend and need no compilation. XLA:CPU takes longer to compile
the normal draws of a deep net than to run its first training steps.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Initializer = Callable[..., jax.Array]


def fan_in(shape: Sequence[int]) -> int:
    """Inputs of one output unit: the product of all kernel axes but the last."""
    return max(math.prod(shape[:-1]), 1)


def normal_fan_in(gain: float) -> Initializer:
    """Normal of variance ``gain / fan_in``, not truncated.

    Args:
      gain: 2 for layers before a ReLU (He et al. 2015, "Delving deep into
        rectifiers", section 2.2), 1 for linear ones.

    Returns:
      An initialiser ``(key, shape, dtype) -> array``.
    """

    def initialize(key: Any, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
        std = math.sqrt(gain / fan_in(shape))
        return _draw(lambda rng: std * rng.standard_normal(shape), key, shape, dtype)

    return initialize


he_normal = normal_fan_in(2.0)
lecun_normal = normal_fan_in(1.0)


def _draw(
    draw: Callable[[np.random.Generator], np.ndarray],
    key: Any,
    shape: Sequence[int],
    dtype: Any,
) -> jax.Array:
    """Call ``draw`` with a generator seeded by the key, also while tracing."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)

    def on_host(bits: Any) -> np.ndarray:
        seed = np.asarray(bits, np.uint32).ravel()
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
        return np.asarray(draw(rng), dtype).reshape(shape)

    if isinstance(key, jax.core.Tracer):
        result = jax.ShapeDtypeStruct(tuple(shape), dtype)
        return jax.pure_callback(on_host, result, key, vmap_method="sequential")
    return jnp.asarray(on_host(key))
