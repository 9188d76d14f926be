"""Convolution kernels, and which library provides them on this machine."""

from cnn_jax.kernels.extension import advice, library

__all__ = ["advice", "library"]
