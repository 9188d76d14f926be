"""The measure of the loss around trained nets."""

import pathlib
from collections.abc import Sequence

import numpy as np

from cnn_jax.analysis import landscape
from cnn_jax.analysis.trained import Net
from experiments.measures.rows import Row


def measure_landscape(
    nets: Sequence[Net],
    directory: pathlib.Path,
    depths: Sequence[int],
    points: int,
    extent: float,
    images: int,
    seed: int,
) -> list[Row]:
    """Training loss and error on a square grid around each net.

    Args:
      nets: the seeds of a shape, trained.
      directory: receives a file of each net's landscape with its directions.
      depths: which are looked at.
      points: of an axis, odd, so that the net itself is one of them.
      extent: the axes go from minus this to this (1 in the paper).
      images: training images that the loss is a mean over, 0 for all.
      seed: of the directions, the same for all nets.

    Returns:
      A row for each seed and point: 'first' and 'second' (its coordinates), 'loss'
      and 'error'.
    """
    del depths
    axis = np.linspace(-extent, extent, points)
    rows = []
    for net in nets:
        found = landscape.explore(
            landscape.EvaluationLoss(net.model, net.program.loss, net.program.errors),
            net.variables["params"],
            (axis, axis),
            seed,
            (
                net.variables["batch_stats"],
                landscape.stack(net.batches("train", images)),
            ),
        )
        name = f"landscape-{net.family}-{net.depth}-seed{net.seed}.npz"
        landscape.save(found, directory / name)
        rows += [
            {
                **net.label,
                "first": float(axis[down]),
                "second": float(axis[across]),
                "loss": float(found.values["loss"][down, across]),
                "error": float(found.values["error"][down, across]),
            }
            for down, across in np.ndindex(points, points)
        ]
    return rows
