"""Measures of nets as ensembles: lesions, paths, stochastic depth."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax import study
from cnn_jax.analysis import blocks, gradients, lesions
from cnn_jax.analysis.trained import Net
from cnn_jax.train.program import Program
from experiments.measures.rows import Row


def measure_lesions(
    nets: Sequence[Net],
    images: int,
    removed: Sequence[int],
    swaps: Sequence[int],
    draws: int,
) -> list[Row]:
    """Test error with blocks removed or exchanged.

    Args:
      nets: the seeds of a shape, trained.
      images: test images, 0 for all.
      removed: how many blocks to remove at random; counts that a net does not have
        are left out.
      swaps: how many random exchanges of two blocks, where two are alike.
      draws: random choices for each of those counts.

    Returns:
      Rows of a 'kind': 'intact', 'one' (each block that can be removed, in turn),
      'several' and 'exchanged'; with 'count' (blocks removed, exchanges), 'block'
      (from 1; 0 where it is not one), 'draw', 'kendall_tau' and 'error'.
    """
    rows = []
    for net in nets:
        sites = blocks.sites(net.model, net.variables, net.program.image_shape)
        data = list(net.batches("test", images))
        random = np.random.default_rng(net.seed)
        whole = np.ones(len(sites))
        removable = [number for number, site in enumerate(sites) if site.removable]

        def row(
            kind: str,
            keep: np.ndarray,
            order: Sequence[int],
            net: Net = net,
            sites: Sequence[blocks.Site] = sites,
            data: Any = data,
            **columns: int,
        ) -> Row:
            variables = lesions.exchanged(net.variables, sites, order)
            error = lesions.error_without(
                net.model, variables, data, keep, net.program.errors
            )
            return {
                **net.label,
                "kind": kind,
                "count": 0,
                "block": 0,
                "draw": 0,
                **columns,
                "kendall_tau": lesions.kendall_tau(order),
                "error": error,
            }

        still = range(len(sites))
        rows.append(row("intact", whole, still))
        for number in removable:
            keep = whole.copy()
            keep[number] = 0
            rows.append(row("one", keep, still, count=1, block=number + 1))
        for count in removed:
            for draw in range(draws if count <= len(removable) else 0):
                keep = lesions.some_removed(sites, count, random)
                rows.append(row("several", keep, still, count=count, draw=draw))
        for count in swaps:
            for draw in range(draws if lesions.exchangeable(sites) else 0):
                order = lesions.shuffled(sites, count, random)
                rows.append(row("exchanged", whole, order, count=count, draw=draw))
    return rows


def measure_paths(
    nets: Sequence[Net], depths: Sequence[int], images: int, draws: int
) -> list[Row]:
    """Gradient along paths of each length, and how many paths have that length.

    Args:
      nets: the seeds of a shape of residual nets, trained.
      depths: which depths are looked at (the others are not given).
      images: training images of the loss.
      draws: random paths of each length.

    Returns:
      A row for each seed and length: 'length', 'share' (of all paths), 'gradient'
      (norm at the input, mean over paths) and 'contribution' (their product).
    """
    del depths
    rows = []
    for net in nets:
        sites = blocks.sites(net.model, net.variables, net.program.image_shape)
        batch = jax.tree.map(lambda leaf: leaf[:images], net.train_batches(1)[0])
        random = np.random.default_rng(net.seed)
        for length, share in enumerate(lesions.path_lengths(len(sites))):
            norms = []
            alike = length in (0, len(sites))  # then there is a single path
            for _ in range(1 if alike else draws):
                through = np.zeros(len(sites))
                through[random.choice(len(sites), length, replace=False)] = 1
                norms.append(
                    lesions.path_gradient(
                        net.model, net.variables, batch, net.program.loss, through
                    )
                )
            gradient = float(np.mean(norms))
            rows.append(
                {
                    **net.label,
                    "length": length,
                    "share": float(share),
                    "gradient": gradient,
                    "contribution": float(share) * gradient,
                }
            )
    return rows


def measure_stochastic_depth(
    nets: Sequence[Net],
    depth: int,
    death_rate: float,
    removed: Sequence[int],
    draws: int,
) -> list[Row]:
    """Test error with blocks removed, of nets trained with and without the field.

    Args:
      nets: the seeds of a residual shape, trained without stochastic depth.
      depth: of that shape (others are not given).
      death_rate: of the last block (see `cnn_jax.models.resnet.ResNet`); the same
        runs are trained with it anew.
      removed: how many blocks to remove at random.
      draws: random choices for each count.

    Returns:
      A row for each seed, death rate (0 and this), count and draw: 'death_rate',
      'removed', 'draw' and 'error'. Both nets lose the same blocks.
    """
    del depth
    config = study.merge(
        nets[0].program.config, {"model": {"stochastic_depth": death_rate}}
    )
    program = Program(config, nets[0].program.source)
    rows = []
    for net in nets:
        [again] = gradients.snapshots(program, net.seed, [net.step])
        sites = blocks.sites(net.model, net.variables, net.program.image_shape)
        for rate, one in ((0.0, net), (death_rate, again)):
            data = list(one.batches("test"))
            random = np.random.default_rng(net.seed)
            for count in (0, *removed):
                for draw in range(draws if count else 1):
                    keep = lesions.some_removed(sites, count, random)
                    error = lesions.error_without(
                        one.model, one.variables, data, keep, one.program.errors
                    )
                    found = {"death_rate": rate, "removed": count, "draw": draw}
                    rows.append({**net.label, **found, "error": error})
    return rows
