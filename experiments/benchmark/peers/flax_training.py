"""A train step as flax's examples write it: jit, optax, lax's own operations.

The networks are this package's modules, traced with plain definitions: convolution,
pooling, batch norm and ReLU are lax's, and autodiff derives their gradients.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax.kernels import plain
from experiments.benchmark.case import MAP_J, MOMENTUM, RATE, WEIGHT_DECAY, Case
from experiments.benchmark.contender import jax_memory
from experiments.benchmark.peers import NoPeer


class Flax:
    """Plain flax on one device.

    Args:
      case: the case to train.

    Raises:
      NoPeer: the case has several devices.
    """

    def __init__(self, case: Case):
        if case.devices > 1:
            raise NoPeer("the plain flax step supports one device only")
        net = case.module()
        images, labels = case.arrays()
        self.batch = jax.device_put((images, labels))
        variables = initial_variables(net, case.image)
        optimizer = optax.chain(
            optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(RATE, MOMENTUM)
        )
        params = variables["params"]
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        stats = variables.get("batch_stats", {})
        self.state = {"params": params, "batch_stats": stats, "key": jax.random.key(1)}
        self.state["optimizer"] = optimizer.init(params)
        self.step = jax.jit(
            functools.partial(train_step, net, optimizer, case.loss), donate_argnums=0
        )

    def run(self, steps: int) -> float:
        """See `experiments.benchmark.contender.Contender.run`."""
        for _ in range(steps):
            self.state, loss = self.step(self.state, *self.batch)
        jax.block_until_ready(self.state)
        return float(loss)

    def device_memory(self) -> int | None:
        """See `experiments.benchmark.contender.Contender.device_memory`."""
        return jax_memory(jax.devices()[0])


def initial_variables(net: Any, image: tuple[int, int, int]) -> Any:
    """Fan-in kernels, other leaves zeros or ones; linen's draws are slow to compile."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(
        lambda: net.init(jax.random.key(0), jnp.zeros((1, *image)), train=False)
    )

    def draw(path: Any, leaf: Any) -> jax.Array:
        shape, name = leaf.shape, path[-1].key
        if name == "kernel":
            fan_in = math.prod(shape[:-1])
            return jnp.asarray(random.normal(0, fan_in**-0.5, shape), leaf.dtype)
        ones = name in ("scale", "var", "coefficient")
        return jnp.full(shape, float(ones), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def train_step(
    net: Any, optimizer: Any, loss_name: str, state: Any, images: Any, labels: Any
) -> Any:
    """Take one step; return the new state and the mean loss of the batch."""
    key, dropout = jax.random.split(state["key"])

    def objective(params: Any) -> Any:
        outputs, changed = net.apply(
            {"params": params, "batch_stats": state["batch_stats"]},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout},
        )
        if loss_name == "map":
            rubbish = jnp.full((len(outputs), 1), -MAP_J)
            outputs = jnp.concatenate([outputs, rubbish], axis=1)
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return losses.mean(), changed.get("batch_stats", {})

    with plain.definitions():
        gradient = jax.value_and_grad(objective, has_aux=True)
        (loss, batch_stats), gradients = gradient(state["params"])
    updates, opt_state = optimizer.update(
        gradients, state["optimizer"], state["params"]
    )
    params = optax.apply_updates(state["params"], updates)
    changed = {"params": params, "batch_stats": batch_stats, "optimizer": opt_state}
    return {**changed, "key": key}, loss
