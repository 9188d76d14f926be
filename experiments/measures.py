"""What `experiments.why_resnets_work` measures: from trained nets to table rows.

Each function takes the nets of the seeds of one shape, and settings by keyword:
they are the schema of the config's sections. Rows begin with the net's family,
depth, seed and step; errors are fractions.
"""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax import study
from cnn_jax.analysis import (
    blocks,
    gradients,
    insertion,
    landscape,
    lesions,
    linearity,
    responses,
    shattered,
)
from cnn_jax.analysis.trained import Net
from cnn_jax.train.program import Program
from experiments import one_by_one

Row = dict[str, Any]


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


def measure_insertion(
    nets: Sequence[Net],
    family: str,
    depth: int,
    site: str,
    blocks: Sequence[int],
    rates: Sequence[float],
    steps: Sequence[int],
) -> list[Row]:
    """Training error after layers were inserted, and after training went on.

    Args:
      nets: the seeds of the shape that layers are inserted in, trained.
      family: of that shape (others are not given).
      depth: of that shape.
      site: the module behind which layers are inserted.
      blocks: how many blocks of two layers.
      rates: of the training that goes on, constant.
      steps: when the error is measured, ascending from 0, right after the insertion.

    Returns:
      A row for each seed, way of inserting (see `insertion.insert`), number of
      blocks, rate and step: 'how', 'blocks', 'rate', 'more_steps', 'train_error',
      'train_loss', 'changed_logits' (whose bits the insertion changed, of the
      training set) and 'largest_change' (of a logit).
    """
    del family, depth
    rows = []
    for net in nets:
        program, data = net.program, list(net.batches("train"))
        more = net.train_batches(steps[-1], start=net.step)
        for how, count in _insertions(blocks):
            longer, variables = insertion.insert(
                net.model,
                net.variables,
                site,
                count,
                how,
                data,
                jax.random.key(net.seed),
            )
            changed, largest = insertion.changed_logits(
                net.model, net.variables, longer, variables, data
            )
            for rate in rates:
                states = itertools.chain(
                    [variables],
                    insertion.train(
                        longer, variables, more, program.loss, program.optimizer, rate
                    ),
                )
                for step, state in enumerate(states):
                    if step not in steps:
                        continue
                    found = insertion.measure(
                        longer, state, data, program.loss, program.errors
                    )
                    rows.append(
                        {
                            **net.label,
                            "how": how,
                            "blocks": count,
                            "rate": rate,
                            "more_steps": step,
                            "train_error": found["error"],
                            "train_loss": found["loss"],
                            "changed_logits": changed,
                            "largest_change": largest,
                        }
                    )
    return rows


def measure_one_by_one(
    nets: Sequence[Net],
    size: int,
    channels: int,
    shrink: int,
    width: int,
    batch: int,
    seeds: int,
) -> list[Row]:
    """What 1x1 convolutions save and add, see `experiments.one_by_one`.

    Args:
      nets: none.
      size: height and width of the map.
      channels: of the input.
      shrink: maps of the 1x1 convolution.
      width: maps of the output.
      batch: images a timed call.
      seeds: nets that learn the exclusive or, of each kind.

    Returns:
      Rows of a 'kind': 'shrink' for each kernel, with 'direct_parameters',
      'parameters', 'direct_macs', 'macs' and 'time_ratio'; and 'exclusive_or' for
      each seed, with 'layers' and 'error'. What a kind has not is 0 or ''.
    """
    del nets
    blank = {
        **{"family": "", "depth": 0, "seed": 0, "step": 0, "kind": "", "kernel": 0},
        **dict.fromkeys(("direct_parameters", "parameters", "direct_macs", "macs"), 0),
        **{"time_ratio": 0.0, "layers": "", "error": 0.0},
    }
    rows = []
    for kernel in (5, 3):
        found = one_by_one.measure_saving(kernel, size, channels, shrink, width, batch)
        rows.append(
            {
                **blank,
                "kind": "shrink",
                "kernel": kernel,
                "direct_parameters": found.direct.parameters,
                "parameters": found.shrunk.parameters,
                "direct_macs": found.direct.macs,
                "macs": found.shrunk.macs,
                "time_ratio": found.time_ratio,
            }
        )
    for added, seed in itertools.product((False, True), range(seeds)):
        layers = "with 1x1 and ReLU" if added else "linear"
        learned = {"kind": "exclusive_or", "layers": layers, "seed": seed}
        error = one_by_one.learn_exclusive_or(added, seed)
        rows.append({**blank, **learned, "error": error})
    return rows


def _insertions(blocks: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Ways and numbers of blocks; the control once."""
    for how in insertion.HOWS:
        for count in blocks if how != "none" else (0,):
            yield how, count
