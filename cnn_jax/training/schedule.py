"""Learning-rate schedules by name: functions of the optimizer step, not the epoch."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from cnn_jax import names

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]


def piecewise(
    rates: Sequence[float],
    boundaries: Sequence[int] = (),
    warmup_steps: int = 0,
    per_images: int = 0,
    batch_size: int = 0,
) -> Schedule:
    """Piecewise constant: ``rates[i]`` until step ``boundaries[i]``, then the next.

    Args:
      rates: learning rates, one more than boundaries.
      boundaries: first step of each later rate, increasing.
      warmup_steps: steps of a linear warm-up to the first rate (see `_warmup`).
      per_images: batch size that the rates refer to (see `_scale`); 0 for no scaling.
      batch_size: images per step.

    Returns:
      A function from a step to its learning rate.

    Raises:
      ConfigError: no rates, lengths that do not match, boundaries that are negative
        or do not increase, a negative rate, or a warm-up that ends after the first
        boundary.
    """
    if not rates:
        raise names.ConfigError("schedule.rates is empty")
    for value in rates:
        _check_not_negative("schedule.rates", value)
    if len(rates) != len(boundaries) + 1:
        raise names.ConfigError(
            f"schedule: {len(rates)} rates need {len(rates) - 1} boundaries, "
            f"got {len(boundaries)}"
        )
    if sorted(set(boundaries)) != list(boundaries) or min(boundaries, default=0) < 0:
        raise names.ConfigError(
            "schedule: boundaries must increase and not be negative, got "
            f"{tuple(boundaries)}"
        )
    scale = _scale(per_images, batch_size)
    scaled = [scale * rate for rate in rates]

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        table = jnp.asarray(scaled, jnp.float32)
        return table[(step >= jnp.asarray(boundaries, jnp.int32)).sum()]

    end = float(boundaries[0]) if boundaries else math.inf
    start = float(rates[0]) if per_images else 0.0
    return _warmup(rate, start, scaled[0], warmup_steps, end)


def cosine(
    rate: float,
    steps: int,
    warmup_steps: int = 0,
    per_images: int = 0,
    batch_size: int = 0,
) -> Schedule:
    """Cosine decay from the peak rate to 0.

    Args:
      rate: peak rate (Loshchilov and Hutter 2017, without restarts).
      steps: step at which the rate reaches 0.
      warmup_steps: steps of a linear warm-up before the decay (see `_warmup`).
      per_images: batch size that the rate refers to (see `_scale`); 0 for no scaling.
      batch_size: images per step.

    Returns:
      A function from a step to its learning rate.

    Raises:
      ConfigError: warmup_steps is not in [0, steps), or the rate is negative.
    """
    _check_not_negative("schedule.rate", rate)
    if not 0 <= warmup_steps < steps:
        raise names.ConfigError(
            f"schedule: warmup_steps must be in [0, steps={steps}), got {warmup_steps}"
        )
    highest = _scale(per_images, batch_size) * rate
    start = rate if per_images else 0.0
    return optax.warmup_cosine_decay_schedule(
        start if warmup_steps else highest, highest, warmup_steps, steps
    )


def _scale(per_images: int, batch_size: int) -> float:
    """The linear scaling rule: k times the batch size, k times the learning rate.

    Goyal et al. (2017), "Accurate, large minibatch SGD: training ImageNet in 1
    hour", section 2.1.
    """
    if per_images < 0:
        raise names.ConfigError(f"schedule.per_images {per_images} is negative")
    return batch_size / per_images if per_images else 1.0


def _warmup(
    schedule: Schedule, start: float, peak: float, steps: int, end: float
) -> Schedule:
    """Put a linear warm-up before a schedule.

    Goyal et al. (2017), section 2.2: "gradual warmup" from the unscaled rate, or from
    0 without scaling. The schedule's steps count from the start of the run.
    """
    if not 0 <= steps <= end:
        raise names.ConfigError(
            f"schedule: warmup_steps must be in [0, {end:g}], up to the first "
            f"boundary, got {steps}"
        )
    if not steps:
        return schedule

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        risen = start + (peak - start) * step / steps
        return jnp.where(step < steps, risen, schedule(step))

    return rate


def _check_not_negative(key: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise names.ConfigError(f"{key} must be finite and not negative, got {value}")


SCHEDULES: dict[str, Callable[..., Any]] = {"piecewise": piecewise, "cosine": cosine}


class Warmup(NamedTuple):
    """A low rate until the training error falls (He et al. 2015, section 4.2).

    The paper trains depth 110 at 0.01 "until the training error is below 80 %" and
    then returns to 0.1 permanently. This is the running training error, averaged over
    about 50 steps (see `cnn_jax.training.steps`).

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
    """The learning rate of a step: that of the warm-up or of the schedule."""
    return jnp.where(warming, jnp.float32(warmup.rate), schedule(step))
