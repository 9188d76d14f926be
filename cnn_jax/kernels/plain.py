"""A switch from the fast definitions of layers to the plain ones.

Batch norm, max-pooling and some convolutions carry derivatives of their own, which
forward mode alone cannot go through, and on a CPU the convolution is sometimes a
larger one with zeros in it. What is traced within `definitions`, or directly by
`jax.jvp` or `jax.jacfwd`, is written as the textbook has it.

Forward mode of a function that `jax.jit` has traced sees the fast definitions, and
JAX's error "can't apply forward-mode autodiff (jvp) to a custom_vjp function": trace
it within `definitions`, or put the `jax.jit` outside.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from jax.interpreters import ad

# Not of jax's documented interface; without it `definitions` has to be asked for.
_FORWARD = getattr(ad, "JVPTracer", ())
_ASKED = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def definitions() -> Iterator[None]:
    """Plain definitions for what is traced within.

    For derivatives in forward mode alone (reverse mode, and forward mode over
    it, need nothing of this) and for counting operations.
    """
    token = _ASKED.set(True)
    try:
        yield
    finally:
        _ASKED.reset(token)


def asked(*inputs: Any) -> bool:
    """Whether to use the plain definition.

    Args:
      *inputs: of the layer.

    Returns:
      True within `definitions`, and where forward mode itself traces the inputs
      (reverse mode traces them otherwise, also under forward mode).
    """
    return _ASKED.get() or any(isinstance(leaf, _FORWARD) for leaf in inputs)
