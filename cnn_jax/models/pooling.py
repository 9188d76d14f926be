"""Max-pooling with a custom derivative that compiles and is fast on every backend.

Autodiff differentiates a windowed maximum by `select_and_scatter`. XLA's CPU backend
expands that into a scatter over every pixel, and on GPUs it does not compile under
the determinism flags. Here the forward pass also records the *index* of each window's
largest pixel, and the backward pass routes the gradient there. The first of equal
pixels receives the gradient, as in torch and in lax.

Reverse mode of any order and forward-over-reverse mode are supported; forward mode
alone uses the plain definition (see `plain`).
"""

import operator
from collections.abc import Sequence
from functools import partial, reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from cnn_jax.kernels import plain
from cnn_jax.kernels import pooling as compiled
from cnn_jax.kernels.geometry import Geometry

Images = Float[Array, "batch height width channels"]
FeatureMaps = Float[Array, "batch rows columns channels"]
# An empty batch that carries the shape and type of the images.
Like = Float[Array, "none height width channels"]
Padding = tuple[tuple[int, int], tuple[int, int]]
Places = UInt8[Array, "batch rows columns channels"]
LARGEST = 16  # window size: indices 0 ... 255 fit one byte


def max_pool(
    x: Images, window: int, stride: int, padding: Padding = ((0, 0), (0, 0))
) -> FeatureMaps:
    """The largest pixel of each window.

    Args:
      x: images or activations, channels last.
      window: height and width, at most 16, so that an index in it fits one byte.
      stride: distance between windows in pixels.
      padding: pixels of -inf (before, after) the rows and the columns; windows that
        would extend past the padded image are dropped.

    Returns:
      (n, (height + padding - window) // stride + 1, ..., channels).

    Raises:
      ValueError: the window is larger than 16.
    """
    if window > LARGEST:
        raise ValueError(f"max_pool: window must be at most {LARGEST}, got {window}")
    if plain.asked(x):
        return nn.max_pool(x, (window, window), (stride, stride), padding)
    return _differentiable(x, window, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _differentiable(
    x: Images, window: int, stride: int, padding: Padding
) -> FeatureMaps:
    return _largest(x, window, stride, padding)[0]


def _forward(
    x: Images, window: int, stride: int, padding: Padding
) -> tuple[FeatureMaps, tuple[Places, Like]]:
    maps, places = _largest(x, window, stride, padding)
    # only the shape of the images is needed: an empty array carries it for free
    return maps, (places, jnp.zeros((0, *x.shape[1:]), x.dtype))


def _backward(
    window: int,
    stride: int,
    padding: Padding,
    residuals: tuple[Places, Like],
    gradient: FeatureMaps,
) -> tuple[Images]:
    places, like = residuals
    size = like.shape[1], like.shape[2]
    geometry = _geometry(like, window, stride, padding)
    if compiled.computes(gradient, geometry):
        return (compiled.route(places, gradient, geometry),)
    if window == stride and padding == ((0, 0), (0, 0)):
        return (_spread(places, gradient, window, size),)
    parts = []
    for place in range(window * window):
        down, across = divmod(place, window)
        own = jnp.where(places == place, gradient, jnp.zeros_like(gradient))
        config = [(0, 0, 0)]
        for first, count, length, pads in zip(
            (down, across), gradient.shape[1:3], size, padding, strict=True
        ):
            before = first - pads[0]
            span = (count - 1) * stride + 1
            config.append((before, length - before - span, stride - 1))
        placed = jax.lax.pad(own, jnp.zeros((), own.dtype), [*config, (0, 0, 0)])
        parts.append(placed)
    return (reduce(operator.add, parts),)


_differentiable.defvjp(_forward, _backward)


def _largest(
    x: Images, window: int, stride: int, padding: Padding
) -> tuple[FeatureMaps, Places]:
    """The largest pixel of each window and its index in it, row by row."""
    geometry = _geometry(x, window, stride, padding)
    if compiled.computes(x, geometry):
        return compiled.largest(x, geometry)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    rows, columns = (
        (length - window) // stride * stride + 1 for length in x.shape[1:3]
    )
    taps = [
        x[:, down : down + rows : stride, across : across + columns : stride]
        for down in range(window)
        for across in range(window)
    ]
    best, places = taps[0], jnp.zeros(taps[0].shape, jnp.uint8)
    for place, tap in enumerate(taps[1:], start=1):
        # NaN wins and stays
        wins = ~(tap <= best) & ~jnp.isnan(best)
        best = jnp.where(wins, tap, best)
        places = jnp.where(wins, jnp.uint8(place), places)
    return best, places


def _geometry(x: Images, window: int, stride: int, padding: Padding) -> Geometry:
    size = x.shape[1], x.shape[2]
    return Geometry(size, (window, window), (stride, stride), padding)


def _spread(
    places: Places, gradient: FeatureMaps, window: int, size: Sequence[int]
) -> Images:
    """Gradient of the images for windows that neither overlap nor leave gaps."""
    # Each pixel of the windows is written in place. A single expression over all of
    # them takes a third longer on CPU, where XLA computes its indices for every value.
    batch, rows, columns, channels = gradient.shape
    images = jnp.zeros((batch, rows, window, columns, window, channels), gradient.dtype)
    for place in range(window * window):
        down, across = divmod(place, window)
        own = jnp.where(places == place, gradient, jnp.zeros_like(gradient))
        images = jax.lax.dynamic_update_slice(
            images, own[:, :, None, :, None], (0, 0, down, 0, across, 0)
        )
    images = images.reshape(batch, rows * window, columns * window, channels)
    left = [
        (0, length - used) for length, used in zip(size, images.shape[1:3], strict=True)
    ]
    return jnp.pad(images, ((0, 0), *left, (0, 0)))
