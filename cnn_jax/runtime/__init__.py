"""What is set before jax starts: XLA's flags, heap, kept programs, a self-check."""
