"""Process set-up before jax starts: XLA flags, heap, compilation cache, self-check."""
