"""A train step as flax's examples write it: jit, optax, lax's own operations.

The networks are this package's modules, traced with plain definitions: convolution,
pooling, batch norm and ReLU are lax's, and autodiff derives their gradients.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cnn_jax.kernels import plain
from cnn_jax.training.state import TrainState, create_state
from experiments.benchmark.case import MAP_J, MOMENTUM, RATE, WEIGHT_DECAY, Case
from experiments.benchmark.contender import Contender
from experiments.benchmark.peers import NoPeer


class Flax(Contender):
    """Plain flax on one device.

    Raises:
      NoPeer: the case has several devices.
    """

    def __init__(self, case: Case):
        if case.devices > 1:
            raise NoPeer("the plain flax step supports one device only")
        net = case.module()
        self.batch = jax.device_put(case.arrays())
        optimizer = optax.chain(
            optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(RATE, MOMENTUM)
        )
        self.state = create_state(net, optimizer, case.image, seed=0, warming=False)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
        self.step = jax.jit(
            functools.partial(train_step, net, optimizer, case.loss), donate_argnums=0
        )

    def run(self, steps: int) -> float:
        """See `experiments.benchmark.contender.Contender.run`."""
        for _ in range(steps):
            self.state, loss = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        return float(loss)


def train_step(
    net: Any, optimizer: Any, loss_name: str, state: TrainState, batch: Any
) -> tuple[TrainState, Any]:
    """Take one step; return the new state and the mean loss of the batch."""
    images, labels = batch
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

    def objective(params: Any) -> Any:
        outputs, changed = net.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        if loss_name == "map":
            rubbish = jnp.full((len(outputs), 1), -MAP_J)
            outputs = jnp.concatenate([outputs, rubbish], axis=1)
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return losses.mean(), changed.get("batch_stats", {})

    with plain.definitions():
        gradient = jax.value_and_grad(objective, has_aux=True)
        (loss, batch_stats), gradients = gradient(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    changed = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return changed, loss
