"""A switch from the fast definitions of layers to the plain ones.

Convolution and batch norm carry derivatives of their own, which `jax.jvp` cannot
go through, and on a CPU the convolution is sometimes a larger one with zeros in
it. What is traced within `definitions` is written as the textbook has it.
"""

import contextlib
import contextvars
from collections.abc import Iterator

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


def asked() -> bool:
    """Whether the code being traced is within `definitions`."""
    return _ASKED.get()
