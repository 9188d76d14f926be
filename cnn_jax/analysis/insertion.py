"""Layers inserted into a trained network: the identity is easy to learn.

He et al. (2015), section 1: a deeper network need not be worse than a shallower one,
since its added layers could be the identity. Yet training does not find this solution
for plain networks. Two layers in a residual block whose last scale is zero *are* the
identity; two plain layers must be constructed as the identity, or learn it.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from cnn_jax import names
from cnn_jax.analysis import layers
from cnn_jax.analysis.net import Batch, Variables, masked_mean
from cnn_jax.models.blocks import BasicBlock
from cnn_jax.models.layers import Images
from cnn_jax.training.optimizer import Rule
from cnn_jax.training.steps import Loss

HOWS = ("none", "residual", "plain_identity", "plain_he")


class Extended(nn.Module):
    """A network with two-layer blocks inserted after one of its modules.

    Attributes:
      base: the network.
      site: path of the module whose output feeds the first inserted block.
      count: number of inserted blocks.
      residual: whether the blocks have an identity shortcut, and a zero scale at the
        end of the branch.
    """

    base: nn.Module
    site: str
    count: int
    residual: bool

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Float[Array, "batch classes"]:
        """Outputs of the extended network."""

        def interceptor(next_method, args, kwargs, context):
            output = next_method(*args, **kwargs)
            path = context.module.path[len(self.path) + 1 :]
            if context.method_name == "__call__" and "/".join(path) == self.site:
                for number in range(1, self.count + 1):
                    block = self.block(output.shape[-1], number)
                    output = block(output, train)
            return output

        with nn.intercept_methods(interceptor):
            return self.base(x, train=train)

    def block(self, width: int, number: int) -> nn.Module:
        """Make an inserted block, with the network's normalisation."""
        return inserted_block(
            width,
            self.residual,
            self.base.norm,
            parent=self,
            name=f"inserted{number}",
        )


def inserted_block(
    width: int, residual: bool, norm: Callable[..., Any], **fields: Any
) -> nn.Module:
    """Two 3x3 layers, either with a shortcut and a zero scale, or with neither."""
    shortcut: Literal["A", "none"] = "A" if residual else "none"
    return BasicBlock(
        width, shortcut=shortcut, zero_scale=residual, norm=norm, **fields
    )


def insert(
    model: nn.Module,
    variables: Variables,
    site: str,
    count: int,
    how: str,
    batches: Iterable[Batch],
    key: Array,
) -> tuple[nn.Module, Variables]:
    """Insert ``count`` two-layer blocks into a trained network.

    Args:
      model: the network, with batch norm.
      variables: 'params' and 'batch_stats'.
      site: path of the module after which the blocks are inserted. Its output must
        be non-negative ('stage2_block1' of a v1 network), so that a ReLU passes it
        unchanged.
      count: number of blocks.
      how: 'none' inserts nothing (a control). 'residual' is exactly the identity, bit
        for bit. 'plain_identity' has identity kernels, and batch norm that inverts
        itself: the identity up to rounding, in evaluation mode. 'plain_he' is
        He-initialised. All use the batch-norm statistics of the training set.
      batches: of the training set, for the statistics.
      key: random key for He-initialised kernels.

    Returns:
      The extended network and its variables.

    Raises:
      ConfigError: unknown ``how``.
      ValueError: no module at ``site``, negative outputs there, or a network without
        batch norm or without a ``norm`` field.
    """
    if how not in HOWS:
        raise names.choices("way to insert layers", how, HOWS)
    if not (hasattr(model, "norm") and variables.get("batch_stats")):
        raise ValueError(
            "layers can be inserted only into a network with batch norm and a field "
            f"'norm'; {type(model).__name__} has none here"
        )
    residual = how == "residual"
    count = 0 if how == "none" else count
    longer = Extended(model, site, count, residual)
    trees = {name: {"base": tree} for name, tree in variables.items()}
    maps = site_outputs(model, variables, batches, site)
    for number in range(1, count + 1):
        if how == "plain_identity":
            own = identity(maps, model.norm().epsilon)
        else:
            norm = functools.partial(model.norm, momentum=0.0, groups=1)
            block = inserted_block(maps.shape[-1], residual, norm)
            own = block.init(jax.random.fold_in(key, number), maps[:1], train=False)
            maps, changed = block.apply(own, maps, train=True, mutable=["batch_stats"])
            own = {**own, **changed}
        trees["params"][f"inserted{number}"] = own["params"]
        trees["batch_stats"][f"inserted{number}"] = own["batch_stats"]
    return longer, jax.device_get(trees)


def site_outputs(
    model: nn.Module, variables: Variables, batches: Iterable[Batch], site: str
) -> Float[Array, "images rows columns maps"]:
    """The outputs of a module for the real images of all batches.

    Raises:
      ValueError: no such module, or negative outputs.
    """
    found = []
    for batch in batches:
        output = np.asarray(_site_output(model, site, variables, batch["image"]))
        found.append(output[np.asarray(batch["mask"]) > 0])
    maps = jnp.asarray(np.concatenate(found), jnp.float32)
    if float(maps.min()) < 0:
        raise ValueError(
            f"{site!r} outputs negative numbers, so a ReLU after it is not the identity"
        )
    return maps


@functools.partial(jax.jit, static_argnames=("model", "site"))
def _site_output(
    model: nn.Module, site: str, variables: Variables, images: Array
) -> Array:
    seen: dict[str, Any] = {}

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        seen[layers.name_of(module)] = output

    layers.watch(model, variables, images, see)
    if site not in seen:
        places = [name for name in seen if name]
        raise ValueError(str(names.choices("place to insert layers", site, places)))
    return seen[site]


def identity(
    maps: Float[Array, "images rows columns maps"], epsilon: float
) -> Variables:
    """Variables that make a plain two-layer block the identity on given inputs.

    Each kernel copies its channel, and each batch norm inverts itself: its scale and
    bias equal the running standard deviation and mean.

    Args:
      maps: the inputs of the block, non-negative.
      epsilon: of the block's batch norm.

    Returns:
      'params' and 'batch_stats'; the variance is unbiased, as in batch norm.
    """
    channels = maps.shape[-1]
    kernel = jnp.zeros((3, 3, channels, channels)).at[1, 1].set(jnp.eye(channels))
    mean, var = maps.mean((0, 1, 2)), maps.var((0, 1, 2), ddof=1)
    params, stats = {}, {}
    for layer in ("1", "2"):
        params[f"conv{layer}"] = {"kernel": kernel}
        params[f"bn{layer}"] = {"scale": jnp.sqrt(var + epsilon), "bias": mean}
        stats[f"bn{layer}"] = {"mean": mean, "var": var}
    return {"params": params, "batch_stats": stats}


def changed_logits(
    model: nn.Module,
    variables: Variables,
    longer: nn.Module,
    longer_variables: Variables,
    batches: Iterable[Batch],
) -> tuple[int, float]:
    """The effect of an insertion on the outputs for real images, in evaluation mode.

    Returns:
      The number of outputs that differ in any bit, and the largest difference.
    """
    count, largest = 0, 0.0
    for batch in batches:
        real = np.asarray(batch["mask"]) > 0
        before, after = (
            np.asarray(_outputs(net, own, batch["image"]))[real]
            for net, own in ((model, variables), (longer, longer_variables))
        )
        count += int((before.view(np.uint32) != after.view(np.uint32)).sum())
        largest = max(largest, float(np.abs(before - after).max()))
    return count, largest


@functools.partial(jax.jit, static_argnames="model")
def _outputs(model: nn.Module, variables: Variables, images: Array) -> Array:
    outputs: Any = model.apply(variables, images, train=False)
    return outputs


def measure(
    model: nn.Module,
    variables: Variables,
    batches: Iterable[Batch],
    loss: Loss,
    errors: Loss,
) -> dict[str, float]:
    """Mean 'loss' and 'error' (a fraction) over all examples, in evaluation mode.

    Raises:
      ValueError: there is no real example.
    """
    totals = np.zeros(3)
    for batch in batches:
        totals += np.asarray(_sums(model, loss, errors, variables, batch), np.float64)
    if totals[2] == 0:
        raise ValueError("the loss needs at least one example, got none")
    return {"loss": totals[0] / totals[2], "error": totals[1] / totals[2]}


@functools.partial(jax.jit, static_argnames=("model", "loss", "errors"))
def _sums(
    model: nn.Module, loss: Any, errors: Any, variables: Variables, batch: Batch
) -> Array:
    outputs = model.apply(variables, batch["image"], train=False)
    real = batch["mask"] > 0
    return jnp.stack(
        [
            jnp.where(real, loss(outputs, batch), 0.0).sum(),
            jnp.where(real, errors(outputs, batch), 0.0).sum(),
            batch["mask"].sum(),
        ]
    )


def train(
    model: nn.Module,
    variables: Variables,
    batches: Iterable[Batch],
    loss: Loss,
    optimizer: Rule,
    rate: float,
    key: Array,
) -> Iterator[Variables]:
    """Continue training all parameters, at a constant rate and without momentum state.

    Args:
      model: the network.
      variables: 'params' and 'batch_stats'.
      batches: one per step.
      loss: (outputs, batch) to per-example losses.
      optimizer: learning rate to optax transformation, as for a run.
      rate: learning rate.
      key: random key for dropout and stochastic depth.

    Yields:
      The variables after each step.
    """
    state = optimizer(rate).init(variables["params"])
    for step, batch in enumerate(batches):
        own = jax.random.fold_in(key, step)
        variables, state = _step(
            model, loss, optimizer, variables, state, batch, jnp.float32(rate), own
        )
        yield variables


@functools.partial(jax.jit, static_argnames=("model", "loss", "optimizer"))
def _step(
    model: nn.Module,
    loss: Any,
    optimizer: Rule,
    variables: Variables,
    state: Any,
    batch: Batch,
    rate: Array,
    key: Array,
) -> tuple[Variables, Any]:
    def objective(params: Any) -> tuple[Array, Any]:
        outputs, changed = model.apply(
            {**variables, "params": params},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return masked_mean(loss(outputs, batch), batch), changed

    gradient, changed = jax.grad(objective, has_aux=True)(variables["params"])
    updates, state = optimizer(rate).update(gradient, state, variables["params"])
    params = optax.apply_updates(variables["params"], updates)
    return {"params": params, **changed}, state
