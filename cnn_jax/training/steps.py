"""The pure train and evaluation steps, written for one device's shard of a batch."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cnn_jax import names
from cnn_jax.data.mixing import Mix
from cnn_jax.data.sources import average_views
from cnn_jax.training import parallel
from cnn_jax.training.optimizer import Rule
from cnn_jax.training.schedule import Schedule, Warmup, current_rate
from cnn_jax.training.state import TrainState

Batch = Mapping[str, Any]
Loss = Callable[[Any, Batch], Float[Array, " batch"]]
Sums = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Any, Any], tuple[TrainState, Sums]]

# The metrics of a train step.
SUMS = ("loss", "error", "count", "rate")
# Decay of the moving average in `TrainState.recent_error`: about 50 steps.
ERROR_MEMORY = 0.98


def errors(outputs: Any, batch: Batch) -> Float[Array, " batch"]:
    """1 where the largest output is not the label, else 0, for each example."""
    return (outputs.argmax(-1) != batch["label"]).astype(jnp.float32)


def masked_sums(losses: Array, wrong: Array, mask: Float[Array, " batch"]) -> Sums:
    """Sums over the real examples of all devices, so that no mean of means arises.

    Args:
      losses: loss of each example, (batch,).
      wrong: 1 for an error, else 0, (batch,).
      mask: 1 for a real example, 0 for padding.

    Returns:
      'loss', 'error' and 'count', each a scalar sum over all devices.

    Raises:
      ConfigError: the losses or errors are not one number for each example.
    """
    local = {
        "loss": masked_sum("loss", losses, mask),
        "error": masked_sum("error", wrong, mask),
        "count": mask.sum(),
    }
    return parallel.psum(local)


def masked_sum(what: str, values: Array, mask: Float[Array, " batch"]) -> Array:
    """The sum over the real examples of a device.

    Args:
      what: the name of the values, for the error.
      values: one for each example, (batch,).
      mask: 1 for a real example, 0 for padding.

    Raises:
      ConfigError: the values have another shape, and would be broadcast.
    """
    if values.shape != mask.shape:
        raise names.ConfigError(
            f"the {what} of {mask.size} examples has the shape {values.shape}; it must "
            "be one number for each example"
        )
    # A select: the loss of a padded example may be infinite, and 0 * inf is NaN.
    return jnp.where(mask > 0, values, 0.0).sum()


def make_train_step(
    model: nn.Module,
    loss: Loss,
    take: Callable[[Any, Any], Batch],
    preprocess: Callable[[Array], Array],
    augment: Callable[[Array, Array], Array],
    optimizer: Rule,
    schedule: Schedule,
    warmup: Warmup,
    errors: Loss = errors,
    mix: Mix | None = None,
    ema_decay: float = 0.0,
) -> TrainStep:
    """Make the step that trains on one batch.

    Args:
      model: the network.
      loss: (outputs, batch) to per-example losses.
      take: (resident arrays, item) to a batch (see `cnn_jax.data.sources`).
      preprocess: uint8 images to normalised float32 images.
      augment: (key, normalised images) to augmented images.
      optimizer: learning rate to optax transformation.
      schedule: step to learning rate.
      warmup: the learning rate before the training error has fallen.
      errors: (outputs, batch) to 1 for each wrong example, else 0.
      mix: mixes pairs of images (see `cnn_jax.data.mixing`); None for no mixing.
        Errors then count against the label with the larger share.
      ema_decay: decay of the weights' moving average, which needs an
        `AveragedState`; 0 for none (see `averaged`).

    Returns:
      Pure ``step(state, resident, item) -> (state, sums)``. The sums are over the
      batch as trained on (augmented, batch statistics), plus the 'rate'.
    """

    def step(state: TrainState, resident: Any, item: Any) -> tuple[TrainState, Sums]:
        batch: Mapping[str, Any] = dict(take(resident, item))
        key = jax.random.fold_in(
            jax.random.wrap_key_data(jnp.asarray(state.key)), state.step
        )
        key = jax.random.fold_in(key, parallel.device_index())
        augment_key, dropout_key = jax.random.split(key)
        images = augment(augment_key, preprocess(batch["image"]))
        total = parallel.psum(batch["mask"].sum())
        losses_of, labelled = loss, batch
        if mix is not None:
            images, losses_of, labelled = mixed(
                mix, jax.random.fold_in(key, 2), images, loss, batch
            )

        def objective(params: Any) -> tuple[Array, Any]:
            outputs, changed = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
            losses = losses_of(outputs, batch)
            # This device's share of the global mean: the shares and their
            # gradients sum over devices to the mean and its gradient.
            share = masked_sum("loss", losses, batch["mask"]) / total
            return share, (outputs, losses, changed)

        grad = jax.grad(objective, has_aux=True)
        gradients, (outputs, losses, changed) = grad(state.params)
        gradients = parallel.sum_gradients(gradients)
        sums = masked_sums(losses, errors(outputs, labelled), batch["mask"])

        rate = current_rate(
            schedule, warmup, jnp.asarray(state.step), jnp.asarray(state.warming)
        )
        updates, opt_state = optimizer(rate).update(
            gradients, state.opt_state, state.params
        )
        params = optax.apply_updates(state.params, updates)
        # Running averages over the groups of all devices.
        batch_stats = parallel.pmean(changed.get("batch_stats", {}))
        if ema_decay:
            weights = {"params": params, "batch_stats": batch_stats}
            state = state.replace(average=averaged(state, weights, ema_decay))
        error = sums["error"] / sums["count"]
        recent = ERROR_MEMORY * state.recent_error + (1 - ERROR_MEMORY) * error
        state = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            warming=state.warming & (recent >= warmup.until_train_error),
            recent_error=recent,
        )
        return state, {**sums, "rate": rate}

    return step


def mixed(
    mix: Mix, key: Array, images: Array, loss: Loss, batch: Batch
) -> tuple[Array, Loss, Batch]:
    """Mix a device's part of a batch in pairs.

    Args:
      mix: from `cnn_jax.data.mixing`.
      key: the random key of this step and device.
      images: the augmented images of the device.
      loss: (outputs, batch) to per-example losses.
      batch: the batch; its images are ignored.

    Returns:
      The mixed images, the loss weighted over both labels, and the batch with the
      label of the larger share.
    """
    images, partner, share = mix(key, images)
    own = {name: value for name, value in batch.items() if name != "image"}
    other = jax.tree.map(lambda leaf: leaf[partner], own)

    def shared(outputs: Any, batch: Batch) -> Float[Array, " batch"]:
        return share * loss(outputs, batch) + (1 - share) * loss(outputs, other)

    larger = jax.tree.map(lambda *pair: jnp.where(share >= 0.5, *pair), own, other)
    return images, shared, larger


def averaged(state: Any, weights: Any, decay: float) -> Any:
    """The moving average of the weights after a step.

    ``average <- d average + (1 - d) weights`` (Polyak and Juditsky 1992 in the
    exponential form of Szegedy et al. 2016, section 8), with
    ``d = min(decay, (1 + step) / (10 + step))``, so that short runs forget the
    initial weights, as in TensorFlow's ``ExponentialMovingAverage``.

    Args:
      state: an `AveragedState`, before the step.
      weights: 'params' and 'batch_stats' after the step.
      decay: the limit of d after many steps.

    Returns:
      A tree like ``weights``.
    """
    kept = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    return jax.tree.map(
        lambda old, new: kept * old + (1 - kept) * new, state.average, weights
    )


def repeat(step: TrainStep, most: int) -> Callable[..., Any]:
    """Several steps in one call, in a loop on the device.

    The number of steps is an argument, so one compiled program serves any number up
    to ``most``. With ``most = 1`` there is no loop: on a GPU the host evaluates a
    loop's end condition and would have to wait for it.

    Args:
      step: from `make_train_step`.
      most: the maximum number of steps per call.

    Returns:
      Pure ``steps(state, (resident, count), items) -> (state, sums)``. The second
      axis of ``items``, of length ``most``, indexes the items, and the first axis of
      ``sums`` the steps; sums past ``count`` are 0.
    """

    def steps(state: TrainState, whole: tuple[Any, Any], items: Any) -> Any:
        resident, count = whole

        def one(index: Any, carried: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
            state, sums = carried
            item = jax.tree.map(lambda leaf: leaf[:, index], items)
            state, new = step(state, resident, item)
            return state, {key: sums[key].at[index].set(new[key]) for key in sums}

        sums = {key: jnp.zeros(most, jnp.float32) for key in SUMS}
        if most == 1:
            return one(0, (state, sums))
        return jax.lax.fori_loop(0, count, one, (state, sums))

    return steps


def make_eval_step(
    model: nn.Module,
    loss: Loss,
    take: Callable[[Any, Any], Batch],
    preprocess: Callable[[Array], Array],
    errors: Loss = errors,
) -> Callable[[Any, Any, Any], Sums]:
    """Make the step that evaluates one batch.

    Args:
      model: the network.
      loss: (outputs, batch) to per-example losses.
      take: (resident arrays, item) to a batch.
      preprocess: uint8 images to normalised float32 images.
      errors: (outputs, batch) to 1 for each wrong example, else 0.

    Returns:
      Pure ``step((params, batch_stats), resident, item) -> sums``.
    """

    def step(weights: tuple[Any, Any], resident: Any, item: Any) -> Sums:
        batch = take(resident, item)
        outputs: Any = model.apply(
            {"params": weights[0], "batch_stats": weights[1]},
            preprocess(batch["image"]),
            train=False,
        )
        if len(jax.tree.leaves(batch["image"])[0]) != len(batch["mask"]):
            outputs = average_views(outputs, batch["label"])
        return masked_sums(loss(outputs, batch), errors(outputs, batch), batch["mask"])

    return step
