"""Measures of what passes through the layers: gradients, responses, changes."""

import itertools
from collections.abc import Sequence

import jax
import numpy as np

from cnn_jax.analysis import blocks, gradients, linearity, responses, shattered
from cnn_jax.analysis.trained import Net
from experiments.measures.rows import Row


def measure_gradients(
    nets: Sequence[Net],
    batches: int,
    along_training: Sequence[int],
    snapshots: Sequence[int],
) -> list[Row]:
    """Gradient norm of each layer before and after training, or along it.

    Args:
      nets: the seeds of a shape, trained.
      batches: training batches that norms are averaged over.
      along_training: depths whose training is repeated to look in between.
      snapshots: the steps to look at then.

    Returns:
      A row for each seed, step and layer, see `gradients.norms`.

    Raises:
      ConfigError: repeating a training does not lead to its network.
    """
    rows = []
    for net in nets:
        if net.depth in along_training:
            steps = sorted({0, *(s for s in snapshots if s <= net.step), net.step})
            states = gradients.repetition(net, steps)
        else:
            states = iter([net.at_initialisation(), net])
        data = net.train_batches(batches)
        for state in states:
            found = gradients.norms(net.model, state.variables, data, net.program.loss)
            rows += [{**net.label, "step": state.step, **row} for row in found]
    return rows


def measure_shattered(
    nets: Sequence[Net], images: int, distances: Sequence[float]
) -> list[Row]:
    """Likeness of gradients at nearby images, before and after training.

    Args:
      nets: the seeds of a shape, trained.
      images: training images that are moved, one batch.
      distances: how far, as fractions of an image's norm.

    Returns:
      A row for each seed, step (0 and the last) and distance: 'distance' and
      'correlation'. Before training, batch-norm statistics are those of a batch.
    """
    rows = []
    for net in nets:
        whole = net.train_batches(1)[0]
        batch = jax.tree.map(lambda leaf: leaf[:images], whole)
        fresh = net.at_initialisation()
        start = shattered.with_batch_statistics(net.model, fresh.variables, whole)
        for step, variables in ((0, start), (net.step, net.variables)):
            found = shattered.input_correlations(
                net.model,
                variables,
                batch,
                np.asarray(distances, float),
                jax.random.key(net.seed),
            )
            for distance, correlation in zip(distances, found, strict=True):
                rows.append(
                    {
                        **net.label,
                        "step": step,
                        "distance": distance,
                        "correlation": float(correlation),
                    }
                )
    return rows


def measure_grid(
    nets: Sequence[Net],
    depths: Sequence[int],
    width: int,
    points: int,
    beta: float,
    seeds: int,
    lags: int,
) -> list[Row]:
    """Autocorrelation of the derivative of random nets of a scalar.

    Args:
      nets: none.
      depths: layers.
      width: units of a layer.
      points: of the grid.
      beta: scale of the branches of the third kind of net.
      seeds: random nets of each kind and depth.
      lags: of the autocorrelation.

    Returns:
      A row for each net and lag: 'lag' and 'autocorrelation'. The families are
      'plain', 'residual' and one that names ``beta``.
    """
    del nets
    families = {
        "plain": (0.0, 1.0),
        "residual": (1.0, 1.0),
        f"residual, branch x {beta:g}": (1.0, beta),
    }
    rows = []
    for depth, (family, (skip, scale)), seed in itertools.product(
        depths, families.items(), range(seeds)
    ):
        derivative = shattered.grid_gradients(
            jax.random.key(seed), depth, width, points, skip, scale
        )
        found = shattered.autocorrelation(np.asarray(derivative), lags)
        for lag, value in enumerate(found):
            rows.append(
                {
                    "family": family,
                    "depth": depth,
                    "seed": seed,
                    "step": 0,
                    "lag": lag,
                    "autocorrelation": float(value),
                }
            )
    return rows


def measure_responses(nets: Sequence[Net], images: int) -> list[Row]:
    """Standard deviation of each layer's response on training images.

    Args:
      nets: the seeds of a shape, trained.
      images: training images that are looked at, 0 for all.

    Returns:
      A row for each seed and layer: 'layer' (from 1, forward order), 'name', 'std'.
    """
    rows = []
    for net in nets:
        data = net.batches("train", images)
        found = responses.standard_deviations(net.model, net.variables, data)
        for number, (name, std) in enumerate(found.items(), start=1):
            rows.append({**net.label, "layer": number, "name": name, "std": std})
    return rows


def measure_linearity(nets: Sequence[Net], images: int) -> list[Row]:
    """How far blocks are from the identity, on training images.

    Args:
      nets: the seeds of a shape, trained.
      images: training images that are looked at, 0 for all.

    Returns:
      A row for each seed and block that keeps the shape: 'block' (from 1, among all
      blocks), 'name' and 'change'.
    """
    rows = []
    for net in nets:
        sites = blocks.sites(net.model, net.variables, net.program.image_shape)
        places = {site.name: number for number, site in enumerate(sites, start=1)}
        data = net.batches("train", images)
        found = linearity.relative_changes(net.model, net.variables, data)
        rows += [
            {**net.label, "block": places[name], "name": name, "change": change}
            for name, change in found.items()
        ]
    return rows
