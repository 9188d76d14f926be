"""Shattered gradients: the correlation of gradients at nearby inputs.

Balduzzi et al. (2017), "The shattered gradients problem": with increasing depth, the
gradients of a plain network at neighbouring inputs decorrelate (as 2^-depth) until
they resemble white noise, whereas those of a residual network stay correlated far
longer. The module measures this on a fully connected network with a scalar input, as
in the paper, and on a convolutional network with slightly perturbed images.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.analysis.net import Batch, Variables


def grid_gradients(
    key: Array, depth: int, width: int, points: int, skip: float, beta: float
) -> Float[Array, " points"]:
    """Derivative of a random network with scalar input and output, over a grid.

    The input x, in [-2, 2], feeds ``width`` units with normal weights and biases,
    which spread their kinks over the grid. Then each layer computes
    ``h <- skip h + beta W relu(BN(h))`` with He-initialised W. Batch norm uses
    statistics over the grid, which are held constant in the differentiation.

    Args:
      key: random key of the weights.
      depth: number of layers.
      width: units per layer (200 in the paper).
      points: number of grid points (256 in the paper).
      skip: 0 for a plain network, 1 for a residual one.
      beta: scale of the branch; 1 for a plain network.

    Returns:
      The derivative at each grid point.
    """
    return _grid_gradients(key, depth, width, points, skip, beta)


@functools.partial(jax.jit, static_argnames=("depth", "width", "points"))
def _grid_gradients(
    key: Array, depth: int, width: int, points: int, skip: Array, beta: Array
) -> Array:
    first, biases, rest, last = jax.random.split(key, 4)
    slopes = jax.random.normal(first, (width,))
    offsets = jax.random.normal(biases, (width,))
    scale = jnp.sqrt(2 / width)
    kernels = scale * jax.random.normal(rest, (depth, width, width))
    readout = jax.random.normal(last, (width,)) / jnp.sqrt(width)

    def layer(h: Array, kernel: Array) -> tuple[Array, None]:
        mean = jax.lax.stop_gradient(h.mean(0, keepdims=True))
        var = jax.lax.stop_gradient(h.var(0, keepdims=True))
        active = jax.nn.relu((h - mean) * jax.lax.rsqrt(var + 1e-5))
        return skip * h + beta * (active @ kernel), None

    def total(x: Array) -> Array:
        h = x[:, None] * slopes[None, :] + offsets[None, :]
        h, _ = jax.lax.scan(layer, h, kernels)
        return (h @ readout).sum()  # each output depends only on its own point

    return jax.grad(total)(jnp.linspace(-2.0, 2.0, points))


def autocorrelation(
    series: Float[np.ndarray, " points"], lags: int
) -> Float[np.ndarray, " lags"]:
    """Sample autocorrelation of a series at lags 0 ... lags - 1.

    ``sum_t (g_t - mean)(g_{t+k} - mean) / sum_t (g_t - mean)^2``.

    Args:
      series: equally spaced samples.
      lags: number of lags, at most the number of points.

    Returns:
      One value per lag; 1 at lag 0. NaN for a constant series.
    """
    centred = np.asarray(series, np.float64) - np.mean(series, dtype=np.float64)
    products = [centred[: len(centred) - k] @ centred[k:] for k in range(lags)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array(products) / products[0]


def with_batch_statistics(
    model: nn.Module, variables: Variables, batch: Batch
) -> Variables:
    """Replace the batch-norm statistics by those of one batch.

    An untrained network has no meaningful running statistics. The variables of a
    network without batch norm stay as they are.

    Args:
      model: a network, with a ``norm`` field if it has batch norm.
      variables: 'params' and 'batch_stats'.
      batch: the statistics are taken over all its images, ignoring the mask.

    Returns:
      The parameters, with the batch's statistics as running statistics.

    Raises:
      ValueError: a network with batch norm has no ``norm`` field.
    """
    if not variables.get("batch_stats"):
        return variables
    if not hasattr(model, "norm"):
        raise ValueError(f"{type(model).__name__} has no field 'norm'")
    return {**variables, "batch_stats": _statistics(model, variables, batch["image"])}


@functools.partial(jax.jit, static_argnames="model")
def _statistics(model: nn.Module, variables: Variables, images: Array) -> Any:
    # With momentum 0, the running statistics are those of the batch.
    norm = functools.partial(model.norm, momentum=0.0, groups=1)
    _, changed = model.clone(norm=norm).apply(
        variables,
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )
    return changed["batch_stats"]


def input_correlations(
    model: nn.Module,
    variables: Variables,
    batch: Batch,
    distances: Float[np.ndarray, " distances"],
    key: Array,
) -> Float[np.ndarray, " distances"]:
    """Cosine similarity of input gradients at images and at perturbed images.

    An image x is moved to ``x + d |x| u``, where u is a random direction of length 1,
    the same for all distances. The gradient is that of the output of the label's
    class, in evaluation mode.

    Args:
      model: the network.
      variables: 'params' and 'batch_stats'.
      batch: images with their labels.
      distances: d, as fractions of an image's norm.
      key: random key of the directions.

    Returns:
      For each distance, the cosine between the gradients at the image and at the
      moved image, averaged over images.
    """
    noise = jax.random.normal(key, batch["image"].shape)
    axes = tuple(range(1, noise.ndim))
    size = jnp.sqrt(jnp.square(batch["image"]).sum(axes, keepdims=True))
    step = noise * size / jnp.sqrt(jnp.square(noise).sum(axes, keepdims=True))
    here = _input_gradients(model, variables, batch["image"], batch["label"])
    found = []
    for distance in distances:
        moved = batch["image"] + float(distance) * step
        there = _input_gradients(model, variables, moved, batch["label"])
        found.append(float(mean_cosine(here, there, batch["mask"])))
    return np.array(found)


@functools.partial(jax.jit, static_argnames="model")
def _input_gradients(
    model: nn.Module, variables: Variables, images: Array, labels: Array
) -> Array:
    def total(images: Array) -> Array:
        outputs: Any = model.apply(variables, images, train=False)
        return jnp.take_along_axis(outputs, labels[:, None], axis=1).sum()

    return jax.grad(total)(images)


@jax.jit
def mean_cosine(
    one: Float[Array, "n ..."], other: Float[Array, "n ..."], mask: Float[Array, " n"]
) -> Float[Array, ""]:
    """Cosine between two gradients at each input, averaged over inputs.

    Args:
      one: gradients, one per input.
      other: gradients to compare with.
      mask: 0 for inputs to ignore; inputs with a zero gradient are ignored too.

    Returns:
      A number in [-1, 1]; NaN if no input counts.
    """
    one, other = one.reshape(len(one), -1), other.reshape(len(other), -1)
    # Normalise first: the squares of a deep network's gradients can overflow.
    one = one / jnp.abs(one).max(1, keepdims=True).clip(1e-30)
    other = other / jnp.abs(other).max(1, keepdims=True).clip(1e-30)
    lengths = jnp.linalg.norm(one, axis=1) * jnp.linalg.norm(other, axis=1)
    cosine = (one * other).sum(1) / jnp.where(lengths > 0, lengths, 1.0)
    counts = (lengths > 0) & (mask > 0)
    return jnp.where(counts, cosine, 0.0).sum() / counts.sum()
