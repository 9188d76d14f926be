"""The loss around a trained network, along filter-normalised random directions.

Li, Xu, Taylor, Studer and Goldstein (2018), "Visualizing the loss landscape of
neural nets", section 4. A direction is Gaussian noise of the parameters' shapes, in
which each filter is rescaled to the norm of the network's filter. This matters
because scaling a filter does not change a network with batch norm, so raw distances
are meaningless. The loss is evaluated at ``parameters + a * first + b * second``. As
published, biases and batch-norm parameters are fixed (zero in every direction), a
filter of a dense layer is the weights of one output, and batch norm runs in evaluation
mode with the trained network's running statistics at every point.

One compiled program evaluates a row of grid points in a loop, with the parameters, the
directions and the images on the device; the host reads one row at a time.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.analysis.landscape_file import Landscape, digest
from cnn_jax.models.lenet import c3_connections
from cnn_jax.training.steps import Batch, Loss

# (parameters, *further arguments) to named scalars.
Objective = Callable[..., dict[str, Float[Array, ""]]]


@dataclasses.dataclass(frozen=True)
class EvaluationLoss:
    """Mean loss and error of a network in evaluation mode, as an `Objective`.

    Attributes:
      model: the network.
      loss: (outputs, batch) to per-example losses.
      errors: (outputs, batch) to 1 for each wrong example, else 0.
    """

    model: nn.Module
    loss: Loss
    errors: Loss

    def __call__(
        self, params: Any, batch_stats: Any, batches: Batch
    ) -> dict[str, Float[Array, ""]]:
        """'loss' and 'error' over all batches.

        Args:
          params: the network's parameters.
          batch_stats: its running batch-norm statistics.
          batches: from `stack`.
        """
        variables = {"params": params, "batch_stats": batch_stats}

        def sums(batch: Batch) -> dict[str, Array]:
            outputs = self.model.apply(variables, batch["image"], train=False)
            real = batch["mask"] > 0
            return {
                "loss": jnp.where(real, self.loss(outputs, batch), 0.0).sum(),
                "error": jnp.where(real, self.errors(outputs, batch), 0.0).sum(),
            }

        totals = jax.tree.map(jnp.sum, jax.lax.map(sums, batches))
        count = batches["mask"].sum()
        return {key: total / count for key, total in totals.items()}


def stack(batches: Iterable[Batch]) -> Batch:
    """Stack batches, redistributing their real examples to minimise padding.

    Args:
      batches: mappings with a 'mask' (1 for an example, 0 for padding).

    Returns:
      One mapping of arrays whose first axis indexes the same number of batches.

    Raises:
      ValueError: there is no real example.
    """
    found = jax.device_get([dict(batch) for batch in batches])
    if not any(batch["mask"].any() for batch in found):
        raise ValueError("a landscape needs at least one example, got none")
    whole = {
        key: np.concatenate([batch[key][batch["mask"] > 0] for batch in found])
        for key in found[0]
    }
    size = -(-len(whole["mask"]) // len(found))
    missing = size * len(found) - len(whole["mask"])
    return {
        key: np.pad(value, [(0, missing)] + [(0, 0)] * (value.ndim - 1)).reshape(
            len(found), size, *value.shape[1:]
        )
        for key, value in whole.items()
    }


def filter_normalized(direction: Any, params: Any) -> Any:
    """Rescale each filter of a direction to the norm of the network's (section 4).

    ``d <- d / |d| * |theta|`` for every filter, that is, for the weights of one
    output: (height, width, channels) of a convolution, or the inputs of a dense layer.
    Biases, scales and all other one-axis parameters become zero. LeNet-5's C3 stores
    its filters by connection, (height, width, connections).

    Args:
      direction: a tree like ``params``.
      params: the network's parameters.

    Returns:
      The normalised direction.
    """

    def normalized(path: Any, d: np.ndarray, theta: np.ndarray) -> np.ndarray:
        if theta.ndim < 2 or path[-1].key in ("bias", "scale"):
            return np.zeros_like(d)
        # Leading axes, before those of the kernel, stack layers for a scan.
        axes = (-4, -3, -2) if theta.ndim >= 4 else (-2,)
        by_connection = theta.ndim == 3 and path[-2].key == "C3"

        def norm(values: np.ndarray) -> np.ndarray:
            if by_connection:
                _, maps = np.nonzero(c3_connections())
                return np.sqrt(np.bincount(maps, np.square(values).sum((0, 1)))[maps])
            return np.sqrt(np.square(values).sum(axes, keepdims=True))

        length, own = norm(theta), norm(d)
        return d * np.divide(length, own, out=np.zeros_like(own), where=own > 0)

    direction, params = jax.tree.map(np.asarray, (direction, params))
    return jax.tree_util.tree_map_with_path(normalized, direction, params)


def random_directions(params: Any, seed: int, count: int) -> tuple[Any, ...]:
    """Filter-normalised Gaussian directions.

    Args:
      params: the network's parameters.
      seed: of the noise.
      count: number of directions.

    Returns:
      ``count`` trees like ``params``.
    """
    # On the host: a program that draws all arrays of a deep network compiles slowly.
    random = np.random.Generator(np.random.Philox(seed))
    return tuple(
        filter_normalized(
            jax.tree.map(
                lambda leaf: random.standard_normal(leaf.shape, np.float32), params
            ),
            params,
        )
        for _ in range(count)
    )


def moved(params: Any, directions: Sequence[Any], point: Any) -> Any:
    """The parameters at a point: the centre plus a multiple of each direction.

    Args:
      params: the centre.
      directions: trees like ``params``.
      point: an array or tuple, the coordinate along each direction.
    """
    for axis, direction in enumerate(directions):
        step = point[axis]
        params = jax.tree.map(lambda p, d, step=step: p + step * d, params, direction)
    return params


def evaluate(
    objective: Objective,
    params: Any,
    directions: Sequence[Any],
    axes: Sequence[Float[np.ndarray, "_"]],
    fixed: Sequence[Any] = (),
) -> dict[str, np.ndarray]:
    """Evaluate an objective on the grid of ``axes`` along ``directions``.

    Args:
      objective: (params, *fixed) to named scalars; hashable, since it is a static
        argument of the compiled program.
      params: the centre of the grid.
      directions: one or more trees like ``params``.
      axes: coordinates along each direction.
      fixed: further arguments of the objective.

    Returns:
      Arrays of shape (points of the first axis, points of the second, ...).

    Raises:
      ValueError: the numbers of axes and directions differ.
    """
    if len(axes) != len(directions) or not axes:
        raise ValueError(f"got {len(directions)} directions and {len(axes)} axes")
    shape = tuple(len(axis) for axis in axes)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    rows = points.reshape(-1, shape[-1], len(axes)).astype(np.float32)
    params, directions, fixed = jax.device_put(
        (params, tuple(directions), tuple(fixed))
    )
    found = [
        jax.device_get(_row(objective, params, directions, row, fixed)) for row in rows
    ]
    return {
        key: np.stack([values[key] for values in found]).reshape(shape)
        for key in found[0]
    }


@functools.partial(jax.jit, static_argnames="objective")
def _row(
    objective: Objective,
    params: Any,
    directions: tuple[Any, ...],
    points: Float[Array, "points axes"],
    fixed: tuple[Any, ...],
) -> dict[str, Float[Array, " points"]]:
    def at(point: Float[Array, " axes"]) -> dict[str, Array]:
        return objective(moved(params, directions, point), *fixed)

    # Points computed side by side need a kernel each, and thus grouped convolutions,
    # which are slower on a CPU.
    return jax.lax.map(at, points)


def explore(
    objective: Objective,
    params: Any,
    axes: Sequence[Float[np.ndarray, "_"]],
    seed: int,
    fixed: Sequence[Any] = (),
) -> Landscape:
    """The landscape of an objective around ``params``, along new random directions.

    Args:
      objective: see `evaluate`.
      params: the centre.
      axes: coordinates along each direction: one axis for a curve, two for a
        surface (in the paper 51 points from -1 to 1).
      seed: of the directions.
      fixed: further arguments of the objective.

    Returns:
      The axes, the directions, and the objective's values on the grid.
    """
    directions = random_directions(params, seed, len(axes))
    values = evaluate(objective, params, directions, axes, fixed)
    axes = tuple(np.asarray(axis) for axis in axes)
    return Landscape(seed, axes, directions, values, digest(params))
