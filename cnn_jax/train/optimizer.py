"""Optimizers and learning-rate schedules, both by name.

An optimizer here is an optax transformation *without* its learning rate: the
step multiplies by the rate, which may depend on the state (see `Warmup`).
Rates are functions of the optimizer step, never of the epoch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from cnn_jax import names

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]
Decay = Literal["all", "kernels"]


def decay_mask(decay: Decay) -> Callable[[Any], Any]:
    """Which parameters weight decay touches.

    Args:
      decay: 'all' of them (Caffe's and torch's default, so the paper's), or only
        'kernels' (no bias, no batch-norm scale).

    Returns:
      A function from a parameter tree to a tree of bools, as optax wants it.
    """
    if decay not in ("all", "kernels"):
        raise names.choices("optimizer.decay", decay, ("all", "kernels"))

    def mask(params: Any) -> Any:
        def chosen(path: Any, _: Any) -> bool:
            return decay == "all" or path[-1].key == "kernel"

        return jax.tree_util.tree_map_with_path(chosen, params)

    return mask


def sgd(
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decay: Decay = "all",
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum and coupled L2.

    ``v <- momentum v + (g + weight_decay w)``, then ``w <- w - rate v``: the
    decay enters before the momentum, as in Caffe and torch (He et al. 2015,
    section 3.4).

    Args:
      momentum: weight of the old direction, in [0, 1).
      nesterov: Nesterov's form of the momentum.
      weight_decay: factor of the L2 gradient.
      decay: what decays (see `decay_mask`).

    Returns:
      The transformation, to be scaled by minus the rate.

    Raises:
      ConfigError: a value out of range.
    """
    if not 0 <= momentum < 1:
        raise names.ConfigError(f"optimizer.momentum {momentum} is not in [0, 1)")
    _check_not_negative("optimizer.weight_decay", weight_decay)
    return optax.chain(
        optax.add_decayed_weights(weight_decay, decay_mask(decay)),
        optax.trace(momentum, nesterov) if momentum else optax.identity(),
    )


def adamw(
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    decay: Decay = "kernels",
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
      b1: decay of the mean of gradients.
      b2: decay of the mean of their squares.
      epsilon: added to the denominator.
      weight_decay: factor of the decay, times the rate.
      decay: what decays (see `decay_mask`).

    Returns:
      The transformation, to be scaled by minus the rate.

    Raises:
      ConfigError: a value out of range.
    """
    for name, value in (("b1", b1), ("b2", b2)):
        if not 0 <= value < 1:
            raise names.ConfigError(f"optimizer.{name} {value} is not in [0, 1)")
    if not 0 < epsilon < math.inf:
        raise names.ConfigError(f"optimizer.epsilon {epsilon} is not positive")
    _check_not_negative("optimizer.weight_decay", weight_decay)
    return optax.chain(
        optax.scale_by_adam(b1, b2, epsilon),
        optax.add_decayed_weights(weight_decay, decay_mask(decay)),
    )


OPTIMIZERS = {"sgd": sgd, "adamw": adamw}


def piecewise(rates: Sequence[float], boundaries: Sequence[int] = ()) -> Schedule:
    """Constant rates: ``rates[i]`` until step ``boundaries[i]``, then the next.

    Args:
      rates: learning rates, one more than boundaries.
      boundaries: first step of each later rate, increasing.

    Returns:
      From a step to its rate.

    Raises:
      ConfigError: lengths that do not fit, boundaries that do not increase, a
        negative rate.
    """
    for value in rates:
        _check_not_negative("schedule.rates", value)
    if len(rates) != len(boundaries) + 1:
        raise names.ConfigError(
            f"schedule: {len(rates)} rates need {len(rates) - 1} boundaries, "
            f"got {len(boundaries)}"
        )
    if sorted(set(boundaries)) != list(boundaries):
        raise names.ConfigError(
            f"schedule: boundaries must increase, got {tuple(boundaries)}"
        )

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        table = jnp.asarray(rates, jnp.float32)
        return table[(step >= jnp.asarray(boundaries, jnp.int32)).sum()]

    return rate


def cosine(rate: float, steps: int, warmup_steps: int = 0) -> Schedule:
    """Linear from 0 over ``warmup_steps``, then half a cosine down to 0.

    Args:
      rate: highest rate (Loshchilov and Hutter 2017, without restarts).
      steps: step at which 0 is reached.
      warmup_steps: length of the rise.

    Returns:
      From a step to its rate.

    Raises:
      ConfigError: a rise that is no part of the steps, a negative rate.
    """
    _check_not_negative("schedule.rate", rate)
    if not 0 <= warmup_steps < steps:
        raise names.ConfigError(
            f"schedule: warmup_steps {warmup_steps} must lie in [0, steps={steps})"
        )
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup_steps else rate, rate, warmup_steps, steps
    )


def _check_not_negative(key: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise names.ConfigError(f"{key} {value} is not a number from 0 up")


SCHEDULES = {"piecewise": piecewise, "cosine": cosine}


class Warmup(NamedTuple):
    """A low rate until training gets going (He et al. 2015, section 4.2).

    The paper trains depth 110 at 0.01 "until the training error is below 80 %"
    and then goes back to 0.1 for good. The training error is the running one,
    averaged over about 50 steps (see `cnn_jax.train.steps`).

    Attributes:
      rate: learning rate of the warm-up.
      until_train_error: training error (a fraction) that ends it; 0 for no warm-up.
    """

    rate: float = 0.0
    until_train_error: float = 0.0


def current_rate(
    schedule: Schedule,
    warmup: Warmup,
    step: Int[Array, ""],
    warming: Bool[Array, ""] | bool,
) -> Float[Array, ""]:
    """The learning rate of a step: the warm-up's while it lasts, else scheduled."""
    return jnp.where(warming, jnp.float32(warmup.rate), schedule(step))
