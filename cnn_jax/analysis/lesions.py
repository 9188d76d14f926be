"""Lesions: networks with blocks removed or exchanged, and the paths through them.

Veit, Wilber and Belongie (2016), "Residual networks behave like ensembles of
relatively shallow networks": removing or moving a block hardly affects a residual
network but breaks a plain one. Of a residual network's 2^n paths, the short ones
carry the gradient.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from cnn_jax.analysis import blocks
from cnn_jax.analysis.blocks import Gates, Site
from cnn_jax.analysis.net import Batch, Variables, masked_mean
from cnn_jax.training.steps import Loss


def error_without(
    model: nn.Module,
    variables: Variables,
    batches: Iterable[Batch],
    keep: Float[np.ndarray, " blocks"],
    errors: Loss,
) -> float:
    """Error of a network with some blocks removed.

    Args:
      model: the network.
      variables: 'params' and 'batch_stats'.
      batches: the evaluation batches.
      keep: 1 or 0 for each block, see `blocks.without`.
      errors: (outputs, batch) to 1 for each wrong example, else 0.

    Returns:
      The error, a fraction.
    """
    wrong, count = 0.0, 0.0
    for batch in batches:
        keep_array = jnp.asarray(keep, jnp.float32)
        one, of = _errors(model, errors, variables, batch, keep_array)
        wrong, count = wrong + float(one), count + float(of)
    return wrong / count


@functools.partial(jax.jit, static_argnames=("model", "errors"))
def _errors(
    model: nn.Module, errors: Loss, variables: Variables, batch: Batch, keep: Gates
) -> tuple[Array, Array]:
    outputs = blocks.without(model, variables, batch["image"], keep)
    mask = batch["mask"]
    return jnp.where(mask > 0, errors(outputs, batch), 0.0).sum(), mask.sum()


def some_removed(
    sites: Sequence[Site], count: int, random: np.random.Generator
) -> np.ndarray:
    """Gates that remove randomly chosen blocks, among those that can be removed.

    Args:
      sites: the network's blocks.
      count: number of blocks to remove.
      random: the random generator.

    Returns:
      1 or 0 for each block.

    Raises:
      ValueError: fewer than ``count`` blocks can be removed.
    """
    removable = [number for number, site in enumerate(sites) if site.removable]
    if count > len(removable):
        raise ValueError(f"cannot remove {count} of {len(removable)} removable blocks")
    keep = np.ones(len(sites))
    keep[random.choice(removable, count, replace=False)] = 0
    return keep


def exchangeable(sites: Sequence[Site]) -> list[tuple[int, int]]:
    """Pairs of interchangeable blocks.

    Args:
      sites: the network's blocks.

    Returns:
      The numbers of every two blocks that keep the shape of their input and have
      parameters of the same shapes.
    """
    return [
        (one, other)
        for one, other in itertools.combinations(range(len(sites)), 2)
        if sites[one].same_shape
        and sites[other].same_shape
        and sites[one].shapes == sites[other].shapes
    ]


def shuffled(
    sites: Sequence[Site], swaps: int, random: np.random.Generator
) -> list[int]:
    """The order of blocks after random swaps of `exchangeable` pairs.

    Args:
      sites: the network's blocks.
      swaps: number of successive swaps.
      random: the random generator.

    Returns:
      For each position, the number of the block now in it.

    Raises:
      ValueError: no two blocks are exchangeable.
    """
    order, pairs = list(range(len(sites))), exchangeable(sites)
    if swaps and not pairs:
        raise ValueError("this network has no two blocks that can be exchanged")
    for _ in range(swaps):
        one, other = pairs[random.integers(len(pairs))]
        order[one], order[other] = order[other], order[one]
    return order


def kendall_tau(order: Sequence[int]) -> float:
    """Kendall's rank correlation of an order with the original one.

    Args:
      order: a permutation of 0 ... n - 1.

    Returns:
      1 for the same order, -1 for the reverse: (pairs in order - pairs out of order)
      over the number of pairs.
    """
    numbers = np.asarray(order)
    after = np.triu(np.ones((len(numbers), len(numbers))), 1)
    agreement = np.sign(numbers[None, :] - numbers[:, None]) * after
    return float(agreement.sum() / after.sum()) if len(numbers) > 1 else 1.0


def exchanged(
    variables: Variables, sites: Sequence[Site], order: Sequence[int]
) -> Variables:
    """The variables of a network with its blocks reordered.

    Args:
      variables: 'params' and 'batch_stats', which is empty without batch norm.
      sites: the network's blocks.
      order: the block at each position, see `shuffled`.

    Returns:
      A copy in which each position has the parameters and statistics of its new block.
    """
    names = [tuple(site.name.split("/")) for site in sites]

    def source(path: tuple[str, ...]) -> tuple[str, ...]:
        """The path, in the network, of the array to put at a path."""
        for name, number in zip(names, order, strict=True):
            if path[: len(name)] == name:
                return names[number] + path[len(name) :]
        return path

    flat = flatten_dict(variables, keep_empty_nodes=True)
    return unflatten_dict({path: flat[path[:1] + source(path[1:])] for path in flat})


def path_lengths(blocks: int) -> Float[np.ndarray, " lengths"]:
    """Share of a residual net's paths that pass through 0, 1, ... n branches.

    Each of n blocks doubles the number of paths: through its branch or along its
    shortcut (Veit et al. 2016, section 3). Of the 2^n paths, C(n, k) pass through k
    branches.

    Args:
      blocks: n.

    Returns:
      (n + 1,) shares, which sum to 1.
    """
    return np.array([math.comb(blocks, k) / 2**blocks for k in range(blocks + 1)])


def path_gradient(
    model: nn.Module,
    variables: Variables,
    batch: Batch,
    loss: Loss,
    through: Float[np.ndarray, " blocks"],
) -> float:
    """Norm of the gradient that reaches the input along one path, in evaluation mode.

    Args:
      model: a network of residual blocks.
      variables: 'params' and 'batch_stats'.
      batch: examples over which the loss is averaged.
      loss: (outputs, batch) to per-example losses.
      through: 1 for each block whose branch the path takes, else 0.

    Returns:
      L2 norm, over the whole batch, of the gradient of the loss with respect to the
      network's input.
    """
    gates = jnp.asarray(through, jnp.float32)
    gradient = input_gradient(model, loss, variables, batch, gates)
    # In float64, since squares along a long path underflow in float32.
    return float(np.linalg.norm(np.asarray(gradient, np.float64)))


@functools.partial(jax.jit, static_argnames=("model", "loss"))
def input_gradient(
    model: nn.Module,
    loss: Loss,
    variables: Variables,
    batch: Batch,
    through: Gates,
) -> Float[Array, "batch height width channels"]:
    """Input gradient of the mean loss along one path, see `path_gradient`."""

    def objective(images: Array) -> Array:
        outputs = blocks.along_paths(model, variables, images, through)
        return masked_mean(loss(outputs, batch), batch)

    return jax.grad(objective)(batch["image"])


def cases(
    sites: Sequence[Site],
    seed: int,
    removed: Sequence[int],
    swaps: Sequence[int],
    draws: int,
) -> Iterator[tuple[str, np.ndarray, Sequence[int], dict[str, int]]]:
    """The lesions of a network, as in the paper's figures 3 to 5.

    Args:
      sites: its blocks.
      seed: of the random choices.
      removed: numbers of blocks to remove at random; numbers larger than the
        removable blocks are skipped.
      swaps: numbers of random exchanges of two blocks of the same shape.
      draws: number of random choices for each of those numbers.

    Yields:
      The kind ('intact', 'one' for each removable block, 'several', 'exchanged'), the
      mask of blocks kept, their order, and what describes the case: 'count' (of blocks
      removed or exchanges), 'block' (from 1) and 'draw'.
    """
    random = np.random.default_rng(seed)
    whole, still = np.ones(len(sites)), range(len(sites))
    removable = [number for number, site in enumerate(sites) if site.removable]
    yield "intact", whole, still, {}
    for number in removable:
        keep = whole.copy()
        keep[number] = 0
        yield "one", keep, still, {"count": 1, "block": number + 1}
    for count in removed:
        for draw in range(draws if count <= len(removable) else 0):
            keep = some_removed(sites, count, random)
            yield "several", keep, still, {"count": count, "draw": draw}
    for count in swaps:
        for draw in range(draws if exchangeable(sites) else 0):
            order = shuffled(sites, count, random)
            yield "exchanged", whole, order, {"count": count, "draw": draw}
