"""Gradient norms: the size of the loss gradient at each layer.

He et al. (2015), section 4.1, argue that plain networks with batch norm do not suffer
from vanishing gradients. Yang et al. (2019), "A mean field theory of batch
normalization", show that without shortcuts gradients *grow* towards the input, by a
constant factor per layer. The norms by layer show this before and during training.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cnn_jax.analysis import layers
from cnn_jax.analysis.net import Batch, Net, Variables, at_initialisation, masked_mean
from cnn_jax.analysis.net import variables as variables_of
from cnn_jax.analysis.trained import family_and_depth
from cnn_jax.training.program import Program
from cnn_jax.training.steps import Loss

Row = dict[str, Any]

# Tolerated distance of a repetition from the network, relative to the distance that
# training moved it. The same program repeats a run bit for bit; rounding differences
# of another program grow with the steps.
REPEATED = 0.05


def norms(
    model: nn.Module, variables: Variables, batches: Iterable[Batch], loss: Loss
) -> list[Row]:
    """Norm of the loss gradient with respect to each layer's weights.

    The gradient is that of a train step: of the mean loss of a batch, with the batch's
    own batch-norm statistics and without weight decay.

    Args:
      model: the network.
      variables: 'params' and 'batch_stats'.
      batches: training batches, over which the norms are averaged.
      loss: (outputs, batch) to per-example losses.

    Returns:
      One row per layer, in forward order: 'layer' (from 1), 'name', 'gradient_norm',
      'weight_norm' and 'loss' (the same in every row).
    """
    found, losses, shape = [], [], None
    for batch in batches:
        shape = batch["image"].shape[1:]
        value, by_path = _norms(model, loss, variables, batch)
        losses.append(float(value))
        found.append(jax.device_get(by_path))
    if shape is None:
        raise ValueError("gradients need at least one batch, got none")
    rows = []
    paths = layers.weight_layers(model, variables, shape)
    for number, (name, path) in enumerate(paths.items(), start=1):
        weights = np.asarray(layers.pick(variables["params"], path), np.float64)
        rows.append(
            {
                "layer": number,
                "name": name,
                "gradient_norm": float(
                    np.mean([layers.pick(one, path) for one in found])
                ),
                "weight_norm": float(np.sqrt(np.square(weights).sum())),
                "loss": float(np.mean(losses)),
            }
        )
    return rows


@functools.partial(jax.jit, static_argnames=("model", "loss"))
def _norms(
    model: nn.Module, loss: Loss, variables: Variables, batch: Batch
) -> tuple[Array, Any]:
    """Mean loss, and the norm of its gradient for each array of parameters."""

    def objective(params: Any) -> Array:
        outputs, _ = model.apply(
            {**variables, "params": params},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        return masked_mean(loss(outputs, batch), batch)

    value, gradient = jax.value_and_grad(objective)(variables["params"])
    return value, jax.tree.map(lambda g: jnp.sqrt(jnp.square(g).sum()), gradient)


def snapshots(program: Program, seed: int, steps: Sequence[int]) -> Iterator[Net]:
    """A network at several steps of its training, repeated in memory on one device.

    A run keeps only its newest checkpoints. A run of the same config and seed on one
    device passes through the same states, so this trains again up to the last step
    requested. A run on several devices is reproduced, up to rounding, only if it
    makes no random draws per device: no augmentation, dropout or stochastic depth.
    `repeat_training` verifies this.

    Args:
      program: of the run, from `trained.program_of`.
      seed: of the run.
      steps: the steps to yield, ascending; 0 is the initialisation.

    Yields:
      The network at each step.
    """
    family, depth = family_and_depth(program)
    net = at_initialisation(program, family, depth, seed)
    if steps and steps[0] == 0:
        yield net
    state = program.place(program.initial_state(seed))
    size = program.config["batch_size"]
    items = program.source.train_batches(seed, size, 0)
    for step in range(1, max(steps, default=0) + 1):
        item = program.devices.split(next(items)[0])
        state, _ = program.train_step(state, program.resident, item)
        if step in steps:
            host = program.fetch(state)
            yield Net(family, depth, seed, step, program, variables_of(host))


def repeat_training(net: Net, steps: Sequence[int]) -> Iterator[Net]:
    """A trained network at earlier steps of its training, repeated by `snapshots`.

    Args:
      net: of a run, at its last step.
      steps: the steps to yield, ascending, up to the network's own step.

    Yields:
      The network at each step, and finally at its own step if ``steps`` lacks it.

    Raises:
      ValueError: the repetition ends at different parameters, so its intermediate
        states are not those of the run.
    """
    wanted = sorted({*steps, net.step})
    for found in snapshots(net.program, net.seed, wanted):
        if found.step == net.step:
            _check_same(found, net)
        yield dataclasses.replace(found, family=net.family)


def _check_same(found: Net, net: Net) -> None:
    """Refuse a network that is too far away, relative to how far training moved it."""

    def distance(one: Variables, other: Variables) -> float:
        pairs = zip(
            jax.tree.leaves(one["params"]),
            jax.tree.leaves(other["params"]),
            strict=True,
        )
        squares = (
            np.square(np.subtract(a, b, dtype=np.float64)).sum() for a, b in pairs
        )
        return math.sqrt(sum(squares))

    apart = distance(found.variables, net.variables)
    moved = distance(net.variables, net.at_initialisation().variables)
    if not apart <= REPEATED * moved:  # written so that NaN is refused too
        raise ValueError(
            f"training {net.family}-{net.depth} with seed {net.seed} again on one "
            f"device does not reproduce its network at step {net.step} (distance "
            f"{apart / max(moved, 1e-30):.2g}, relative to the distance that training "
            "moved it): the run used augmentation or dropout on several devices, "
            "another version, or another machine; train it again, or remove its depth "
            "from gradients.along_training"
        )
