"""Stochastic depth: which branches a training step drops, and evaluation."""

from functools import partial

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.models.blocks import BasicBlock
from tests.models import drawn
from tests.tiers import fast

TINY = {"widths": (2, 3, 4)}


def block_outputs(preactivation, keys, death_rate=0.4):
    """A block's input, the outputs of its branch and shortcut, and its outputs.

    The outputs are those of training, one a key, and that of evaluation; the last
    BN has a bias, so that a positive and a negative part of the sum are clear.
    """
    x = jnp.abs(jax.random.normal(jax.random.key(0), (4, 4, 4, 3)))
    fields = {"width": 5, "stride": 2, "preactivation": preactivation}
    whole = BasicBlock(**fields)
    variables = drawn.variables(whole, *x.shape[1:])
    risky = BasicBlock(**fields, death_rate=death_rate)

    def train(key):
        return risky.apply(
            variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )[0]

    @jax.jit
    def outputs(keys):
        alive = whole.apply(variables, x, train=True, mutable=["batch_stats"])[0]
        evaluated = [net.apply(variables, x, train=False) for net in (whole, risky)]
        return alive, jax.vmap(train)(keys), evaluated

    return outputs(keys)


@pytest.mark.parametrize("preactivation", fast([True], [False, True]))
def test_a_training_step_has_the_whole_branch_or_none_of_it(preactivation):
    """For the whole batch at once, with the frequency of the death rate."""
    keys = jax.random.split(jax.random.key(2), 400)
    alive, outputs, _ = block_outputs(preactivation, keys)
    survived = (jnp.abs(outputs - alive[None]) < 1e-5).all((1, 2, 3, 4))
    # option A's appended channels, where only the branch contributes
    dropped = (outputs[..., 3:] == 0).all((1, 2, 3, 4))
    assert (survived ^ dropped).all()
    # 400 draws: three standard deviations are 0.073
    assert float(dropped.mean()) == pytest.approx(0.4, abs=0.073)


def test_evaluation_adds_the_expected_branch():
    """v2 has no ReLU after the sum, so its output is linear in the kept branches."""
    _, _, (whole, expected) = block_outputs(True, jax.random.split(jax.random.key(0)))
    np.testing.assert_allclose(
        expected[..., 3:], 0.6 * whole[..., 3:], rtol=1e-5, atol=1e-6
    )
    assert float(jnp.abs(whole[..., 3:]).max()) > 0.1


def test_death_rates_grow_linearly_to_the_last_block():
    net = models.create("cifar_resnet", 10, depth=14, stochastic_depth=0.5)
    np.testing.assert_allclose(net.death_rates(), np.arange(1, 7) / 12)


def test_without_stochastic_depth_no_random_stream_is_asked_for():
    image = jnp.ones((2, 8, 8, 3))
    fields = {"depth": 8, **TINY}
    net = models.create("cifar_resnet", 10, **fields)
    key = jax.random.key(0, impl="rbg")  # compiles fast
    variables = jax.jit(partial(net.init, train=False))(key, image)

    def train(net):
        apply = partial(net.apply, train=True, mutable=["batch_stats"])
        return jax.jit(apply)(variables, image)[0]

    same = models.create("cifar_resnet", 10, stochastic_depth=0.0, **fields)
    np.testing.assert_array_equal(train(net), train(same))
    risky = models.create("cifar_resnet", 10, stochastic_depth=0.9, **fields)
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        train(risky)


@pytest.mark.slow
def test_blocks_that_are_left_out_learn_nothing_in_that_step():
    image = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    net = models.create("cifar_resnet", 10, depth=14, stochastic_depth=0.9, **TINY)
    variables = net.init(jax.random.key(0), image, train=False)

    def loss(params, key):
        logits, _ = net.apply(
            {**variables, "params": params},
            image,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return (logits**2).sum()

    gradient = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))
    found = gradient(variables["params"], jax.random.split(jax.random.key(1), 64))
    share = [
        float(
            (found[f"stage{stage}_block2"]["conv1"]["kernel"] == 0)
            .all((1, 2, 3, 4))
            .mean()
        )
        for stage in (1, 2, 3)
    ]
    # 0.3, 0.6 and 0.9; 64 draws: three standard deviations are 0.18 at most
    np.testing.assert_allclose(share, [0.3, 0.6, 0.9], atol=0.19)
