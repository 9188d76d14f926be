"""Optimizers, by name.

The convention is optax's: an optimizer is a function of the learning rate and its
own fields that returns an optax transformation, whose updates are *added* to the
parameters. Each step builds the transformation for its current learning rate (see
`cnn_jax.training.schedule`), so optax's optimizers (`optax:adamw`) work unchanged,
however they use the rate.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import numpy as np
import optax
from jaxtyping import Array, Float

from cnn_jax import names

Rate = float | Float[Array, ""]
Rule = Callable[[Rate], optax.GradientTransformation]
Decay = Literal["all", "kernels"]


def decay_mask(decay: Decay) -> Callable[[Any], Any]:
    """Select the parameters that weight decay applies to.

    Args:
      decay: 'all' (the default of Caffe and torch, hence of the paper), or 'kernels'
        (no biases, no batch-norm scales).

    Returns:
      A function from a parameter tree to a tree of bools, as optax expects.
    """
    if decay not in ("all", "kernels"):
        raise names.choices("optimizer.decay", decay, ("all", "kernels"))

    def mask(params: Any) -> Any:
        def chosen(path: Any, _: Any) -> bool:
            return decay == "all" or path[-1].key == "kernel"

        return jax.tree_util.tree_map_with_path(chosen, params)

    return mask


def sgd(
    learning_rate: Rate,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decay: Decay = "all",
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum and coupled weight decay (L2).

    ``v <- momentum v + (g + weight_decay w)``, then ``w <- w - rate v``: the
    decay enters before the momentum, as in Caffe and torch (He et al. 2015,
    section 3.4).

    Args:
      learning_rate: of this step.
      momentum: weight of the previous direction, in [0, 1).
      nesterov: use Nesterov momentum.
      weight_decay: factor of the L2 gradient.
      decay: the parameters that decay (see `decay_mask`).

    Returns:
      The transformation.

    Raises:
      ConfigError: a value out of range.
    """
    if not 0 <= momentum < 1:
        raise names.ConfigError(f"optimizer.momentum {momentum} is not in [0, 1)")
    _check_not_negative("optimizer.weight_decay", weight_decay)
    direction = optax.chain(
        optax.add_decayed_weights(weight_decay, decay_mask(decay)),
        optax.trace(momentum, nesterov) if momentum else optax.identity(),
    )
    return _descend(direction, learning_rate)


def adamw(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    decay: Decay = "kernels",
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
      learning_rate: of this step.
      b1: decay rate of the first moment.
      b2: decay rate of the second moment.
      epsilon: added to the denominator.
      weight_decay: factor of the decay; multiplied by the learning rate.
      decay: the parameters that decay (see `decay_mask`).

    Returns:
      The transformation.

    Raises:
      ConfigError: a value out of range.
    """
    for name, value in (("b1", b1), ("b2", b2)):
        if not 0 <= value < 1:
            raise names.ConfigError(f"optimizer.{name} {value} is not in [0, 1)")
    if not 0 < epsilon < math.inf:
        raise names.ConfigError(f"optimizer.epsilon {epsilon} is not positive")
    _check_not_negative("optimizer.weight_decay", weight_decay)
    direction = optax.chain(
        optax.scale_by_adam(b1, b2, epsilon),
        optax.add_decayed_weights(weight_decay, decay_mask(decay)),
    )
    return _descend(direction, learning_rate)


def _descend(
    direction: optax.GradientTransformation, learning_rate: Rate
) -> optax.GradientTransformation:
    """Scale a direction by minus the learning rate; adds no state of its own."""

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        found, state = direction.update(gradients, state, params)
        return jax.tree.map(lambda leaf: -learning_rate * leaf, found), state

    return optax.GradientTransformation(direction.init, update)


def _check_not_negative(key: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise names.ConfigError(f"{key} must be finite and not negative, got {value}")


OPTIMIZERS: dict[str, Callable[..., Any]] = {"sgd": sgd, "adamw": adamw}


def build(section: Mapping[str, Any], clip_norm: float = 0.0) -> Rule:
    """The optimizer that a config section describes.

    Args:
      section: ``name`` (a key of `OPTIMIZERS`, ``optax:adamw``, or a user-defined
        function) and its fields except the learning rate.
      clip_norm: maximum norm of the gradient over all parameters; a larger gradient
        is scaled down to it (Pascanu, Mikolov and Bengio 2013, "On the difficulty of
        training recurrent neural networks", section 3.2). 0 for no clipping.

    Returns:
      A function from a learning rate to the transformation.

    Raises:
      ConfigError: unknown name, field or value, or an optimizer that takes no
        learning rate.
    """
    check_takes_rate(section)

    def rule(learning_rate: Rate) -> optax.GradientTransformation:
        own = names.build("optimizer", section, OPTIMIZERS, learning_rate=learning_rate)
        if not clip_norm:
            return own
        return optax.chain(optax.clip_by_global_norm(clip_norm), own)

    rule(0.0)
    return rule


def check_takes_rate(section: Mapping[str, Any]) -> None:
    """Refuse an optimizer that takes no learning rate or whose section sets it."""
    name = section["name"]
    target = names.resolve("optimizer", name, OPTIMIZERS)
    if not callable(target) or "learning_rate" not in names.parameters(target):
        raise names.ConfigError(
            f"optimizer {name!r} takes no learning_rate; expected a function of "
            "(learning_rate, ...) that returns an optax transformation, such as "
            "optax:adamw, whose updates are added to the parameters"
        )
    if "learning_rate" in section:
        raise names.ConfigError(
            f"optimizer {name!r}: set learning_rate with config.schedule, as in "
            f"schedule={{'name': 'piecewise', 'rates': ({section['learning_rate']},)}}"
        )


def check_descends(name: str, rule: Rule, params: Any) -> None:
    """Refuse an optimizer that increases the loss in three steps on a paraboloid.

    Args:
      name: of the optimizer, for the message.
      rule: learning rate to optax transformation.
      params: shapes of the parameters; the check uses small arrays at the same paths.

    Raises:
      ConfigError: the loss increases, or the update needs more than gradients and
        parameters.
    """
    rng = np.random.default_rng(0)
    # The loss is |w|^2 / 2, whose gradient is w.
    small = jax.tree.map(
        lambda leaf: rng.normal(size=[min(n, 2) for n in leaf.shape]).astype("f4"),
        params,
    )

    @jax.jit
    def climb(weights: Any) -> Any:
        transformation = rule(1e-3)
        state, total = transformation.init(weights), 0.0
        for _ in range(3):
            updates, state = transformation.update(weights, state, weights)
            total += optax.tree.vdot(updates, weights)
            weights = optax.apply_updates(weights, updates)
        return total

    try:
        climbed = float(climb(small))
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise names.ConfigError(
            f"the update of optimizer {name!r} fails: {type(error).__name__}: {first}"
        ) from error
    if climbed > 0:
        raise names.ConfigError(
            f"optimizer {name!r} increases the loss: its updates, which are added to "
            "the parameters, point along the gradient; expected minus the learning "
            "rate times a direction, as from optax.scale_by_learning_rate"
        )
