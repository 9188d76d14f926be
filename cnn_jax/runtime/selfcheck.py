"""A self-check of the backend on programs with known results, before training.

Some compiler releases have silently produced wrong numbers. The check runs a program
that jaxlib 0.10.2 miscompiles on CPU, a sum of squares (see `cnn_jax.runtime.backend`),
and the gradients of two convolutions, with the kernels of this machine
(`cnn_jax.kernels`). The operands are small integers and a power of two, which no
backend's default precision rounds. Convolutions may still be off by a hundredth,
because fast algorithms transform their operands.
"""

import os

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jaxtyping import Array, Float

from cnn_jax import kernels
from cnn_jax.kernels import extension
from cnn_jax.kernels.convolution import conv_general_dilated

# Input channels, output channels and stride; the first uses several threads.
CONVOLUTIONS = ((64, 64, 1), (20, 24, 2))
SIZE = 7


class WrongBackend(RuntimeError):
    """The backend gives wrong numbers; the message is one line, with advice."""


def check_backend() -> None:
    """Run the programs and compare their results with the known ones.

    Raises:
      WrongBackend: a result is wrong.
    """
    if not _sum_of_squares_is_right():
        raise _wrong("a sum of squares")
    for channels, features, stride in CONVOLUTIONS:
        if not _gradients_are_right(channels, features, stride):
            raise _wrong(f"the gradient of a convolution of {channels} channels")


def _wrong(what: str) -> WrongBackend:
    flags = os.environ.get("XLA_FLAGS", "")
    return WrongBackend(
        f"the {jax.default_backend()} backend of jaxlib {jaxlib.__version__} computes "
        f"{what} incorrectly, so training did not start: remove your own flags from "
        f"XLA_FLAGS (now {flags!r}), set {extension.SWITCH}=false (convolutions now "
        f"use {kernels.library()}), or install another jaxlib"
    )


def _sum_of_squares_is_right() -> bool:
    """Sums of squares of rows; the last is (32768 + 0 + 0) squared."""
    rows = np.arange(32769.0, dtype=np.float32)[:, None] * np.eye(1, 3, dtype="f")
    squares = jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))
    return float(jax.jit(squares)(rows)[-1]) == 32768.0**2


def _gradients_are_right(channels: int, features: int, stride: int) -> bool:
    """Compare both gradients of a padded 3x3 convolution with sums over its taps."""
    rng = np.random.default_rng(0)
    out = (SIZE - 1) // stride + 1

    def integers(*shape: int) -> np.ndarray:
        return rng.integers(-3, 4, shape).astype(np.float32)

    images, kernel = (
        integers(2, SIZE, SIZE, channels),
        integers(3, 3, channels, features),
    )
    weights = integers(2, out, out, features)

    @jax.jit
    def gradients(
        images: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c f"]
    ) -> tuple[Array, Array]:
        def weighted(images: Array, kernel: Array) -> Array:
            maps = conv_general_dilated(
                images,
                kernel,
                (stride, stride),
                [(1, 1), (1, 1)],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            return (maps * weights).sum()

        return jax.grad(weighted, (0, 1))(images, kernel)

    found = jax.device_get(gradients(images, kernel))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    wanted = np.zeros_like(padded), np.zeros_like(kernel)
    reach = stride * (out - 1) + 1
    for i, j in np.ndindex(3, 3):
        seen = np.s_[:, i : i + reach : stride, j : j + reach : stride]
        wanted[0][seen] += weights @ kernel[i, j].T
        wanted[1][i, j] = np.einsum("nhwc,nhwf->cf", padded[seen], weights)
    pairs = zip(found, (wanted[0][:, 1:-1, 1:-1], wanted[1]), strict=True)
    # Fast algorithms transform the operands, which rounds.
    return all(np.abs(a - b).max() <= 1e-2 * np.abs(b).max() for a, b in pairs)
