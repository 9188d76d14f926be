"""Commands: train, degradation and their companions.

The process keeps freed memory for the next step (see `cnn_jax.runtime.heap`). The
setting must precede the first thread, so it is made here, before a command imports jax.
"""

from cnn_jax.runtime import heap

heap.keep()
