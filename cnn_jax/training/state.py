"""The state of a run: everything that a step changes, and nothing else."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt32


class TrainState(flax.struct.PyTreeNode):
    """The values that training carries from step to step.

    Attributes:
      step: optimizer steps taken.
      key: the run's random key (raw data); each step folds its number into it.
      params: trainable parameters, float32.
      batch_stats: running batch-norm statistics, float32 (may be empty).
      opt_state: the optimizer's own state.
      warming: whether the warm-up rate still applies.
      recent_error: moving average of the training error over about 50 steps.
    """

    step: Int[Array, "*device"] | Int[np.ndarray, "*device"]
    key: UInt32[Array, "*device two"] | UInt32[np.ndarray, "*device two"]
    params: Any
    batch_stats: Any
    opt_state: Any
    warming: Bool[Array, "*device"] | Bool[np.ndarray, "*device"]
    recent_error: Float[Array, "*device"] | Float[np.ndarray, "*device"]


class AveragedState(TrainState):
    """A state with a moving average of its weights.

    Attributes:
      average: averaged 'params' and 'batch_stats', of the same structure.
    """

    average: Any


def not_finite(state: TrainState) -> str:
    """Name of a parameter or statistic that is not finite; '' if all are."""
    weights = {"params": state.params, "batch_stats": state.batch_stats}
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        if not np.isfinite(leaf).all():
            return jax.tree_util.keystr(path, simple=True, separator=".")
    return ""


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
    warming: bool,
    averaged: bool = False,
) -> TrainState:
    """Create the initial state, on the host's default device.

    Args:
      model: the network.
      optimizer: the transformation whose state is initialised.
      image_shape: (height, width, channels) after preprocessing.
      seed: of the parameters and of all later random draws.
      warming: whether the run begins with a warm-up.
      averaged: whether the state holds a moving average of the weights.

    Returns:
      The state before the first step.
    """
    init_key, run_key = jax.random.split(jax.random.key(seed))
    # lazy_init evaluates only the initialisers: it neither runs the forward pass
    # nor compiles one large program.
    variables = model.lazy_init(
        init_key, jax.ShapeDtypeStruct((2, *image_shape), jnp.float32), train=False
    )
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    average = {"average": {"params": params, "batch_stats": batch_stats}}
    return (AveragedState if averaged else TrainState)(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(run_key),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        warming=jnp.asarray(warming),
        recent_error=jnp.ones((), jnp.float32),
        **(average if averaged else {}),
    )


def num_parameters(params: Any) -> int:
    """Number of trainable parameters in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
