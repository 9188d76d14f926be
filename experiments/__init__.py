"""Commands: train, degradation and their companions.

Memory that a step frees is kept for the next one (see `cnn_jax.runtime.heap`); this
must be said before any thread starts, so it is said here, before a command imports jax.
"""

from cnn_jax.runtime import heap

heap.keep()
