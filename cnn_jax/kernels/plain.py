"""A switch from the fast definitions of layers to the plain ones.

Batch norm, max-pooling and some convolutions have custom derivatives, which forward
mode alone does not support. On a CPU a convolution may also be computed as a larger
one padded with zeros. Code traced within `definitions`, or directly by `jax.jvp` or
`jax.jacfwd`, uses the textbook definitions instead.

Forward mode of a function already traced by `jax.jit` meets the fast definitions and
raises JAX's "can't apply forward-mode autodiff (jvp) to a custom_vjp function". Trace
the function within `definitions`, or apply `jax.jit` outside.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from jax.interpreters import ad

# Not part of jax's public interface; without it only `definitions` has an effect.
_FORWARD = getattr(ad, "JVPTracer", ())
_ASKED = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def definitions() -> Iterator[None]:
    """Use plain definitions for code traced within this context.

    Needed for derivatives in forward mode alone and for counting operations. Reverse
    mode and forward-over-reverse mode do not need it.
    """
    token = _ASKED.set(True)
    try:
        yield
    finally:
        _ASKED.reset(token)


def asked(*inputs: Any) -> bool:
    """Whether to use the plain definition.

    Args:
      *inputs: inputs of the layer.

    Returns:
      True within `definitions`, and if forward mode itself traces the inputs
      (reverse mode uses other tracers, also under forward mode).
    """
    return _ASKED.get() or any(isinstance(leaf, _FORWARD) for leaf in inputs)
