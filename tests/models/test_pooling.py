"""Max-pooling equals lax's, including ties, NaNs and derivatives of every order."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.kernels import plain
from cnn_jax.models.pooling import max_pool
from tests.models import drawn
from tests.tiers import fast

NONE = ((0, 0), (0, 0))


@pytest.fixture(autouse=True, params=["the extension", "XLA"])
def library(request, monkeypatch):
    if request.param == "XLA":
        monkeypatch.setenv("CNN_JAX_ONEDNN", "false")


# window, stride, padding, height, width
CASES = {
    "VGG, LeNet-5": (2, 2, NONE, 6, 6),
    "VGG, odd map": (2, 2, NONE, 7, 5),
    "AlexNet": (3, 2, NONE, 9, 8),
    "ResNet's stem": (3, 2, ((1, 1), (1, 1)), 8, 8),
    "Network in Network": (3, 2, ((0, 1), (0, 0)), 8, 9),
    "windows apart": (2, 3, NONE, 8, 8),
    "a window of all": (4, 4, NONE, 4, 4),
    "the largest window": (16, 16, NONE, 16, 33),
}


def lax_pool(x, window, stride, padding):
    return nn.max_pool(x, (window, window), (stride, stride), padding)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", fast(["ResNet's stem", "windows apart"], CASES))
def test_values_and_derivatives_equal_lax(name, ties):
    *how, height, width = CASES[name]
    x = drawn.images(2, height, width, 3)
    if ties:
        x = jnp.round(x)
    expected, pull = jax.vjp(lambda x: lax_pool(x, *how), x)
    found, pull_ours = jax.vjp(jax.jit(lambda x: max_pool(x, *how)), x)
    np.testing.assert_array_equal(found, expected)
    cotangent = drawn.images(*expected.shape, seed=1)
    # sums of overlapping windows may round in another order
    np.testing.assert_allclose(
        pull_ours(cotangent)[0], pull(cotangent)[0], rtol=1e-6, atol=1e-6
    )


def test_places_that_a_byte_does_not_hold_are_refused():
    with pytest.raises(ValueError, match="window must be at most 16, got 17"):
        max_pool(jnp.ones((1, 17, 17, 1)), 17, 17)


def test_no_scatter_is_left_in_the_program():
    x = jnp.ones((2, 8, 8, 3))
    gradient = jax.grad(lambda x, pool: pool(x, 3, 2, NONE).sum())
    with_lax = jax.jit(lambda x: gradient(x, lax_pool)).lower(x).as_text()
    ours = jax.jit(lambda x: gradient(x, max_pool)).lower(x).as_text()
    assert "select_and_scatter" in with_lax
    assert "scatter" not in ours


def test_not_a_number_is_the_largest_and_stays():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1).at[0, 0, 0, 0].set(jnp.nan)
    found = max_pool(x, 2, 2)[0, :, :, 0]
    np.testing.assert_array_equal(found, [[np.nan, 7], [13, 15]])


def test_half_precision_keeps_its_type():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    value, pull = jax.vjp(lambda x: max_pool(x, 2, 2), x)
    assert value.dtype == jnp.bfloat16
    assert pull(value)[0].dtype == jnp.bfloat16


def test_second_derivatives_and_forward_mode_within_plain_definitions():
    x = jax.random.normal(jax.random.key(2), (1, 4, 4, 1))

    def loss(x):
        return (max_pool(x, 2, 2) ** 3).sum()

    def direct(x):
        return (lax_pool(x, 2, 2, NONE) ** 3).sum()

    np.testing.assert_allclose(
        jax.jvp(jax.grad(loss), (x,), (x,))[1],
        jax.jvp(jax.grad(direct), (x,), (x,))[1],
        rtol=1e-6,
    )
    with plain.definitions():
        _, tangent = jax.jvp(loss, (x,), (x,))
    np.testing.assert_allclose(tangent, jax.jvp(direct, (x,), (x,))[1], rtol=1e-6)


@pytest.mark.parametrize("axis", range(5))
def test_vmap_of_a_gradient(axis):
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 5))
    cotangents = jax.random.normal(jax.random.key(1), (4, 2, 4, 3, 5))
    pull = jax.vjp(lambda x: max_pool(x, 3, 2, ((1, 1), (1, 1))), x)[1]
    (found,) = jax.vmap(pull, axis)(jnp.moveaxis(cotangents, 0, axis))
    expected = jnp.stack([pull(cotangent)[0] for cotangent in cotangents])
    np.testing.assert_array_equal(found, expected)


def test_gradient_of_a_gradient():
    x = jax.random.normal(jax.random.key(0), (2, 8, 7, 3))

    def slope_of_size(pool):
        def slope(x):
            return jax.grad(lambda x: (pool(x, 3, 2, ((1, 1), (1, 1))) ** 3).sum())(x)

        return jax.jit(jax.grad(lambda x: (slope(x) ** 2).sum()))(x)

    with plain.definitions():
        expected = slope_of_size(max_pool)
    np.testing.assert_allclose(slope_of_size(max_pool), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 3])
def test_vmap_of_a_derivative(axis):
    how = 3, 2, ((1, 1), (1, 1))
    x = jax.random.normal(jax.random.key(0), (3, 2, 8, 7, 4))

    def slope(pool, x):
        return jax.grad(lambda x: jnp.tanh(pool(x, *how)).sum())(x)

    found = jax.vmap(lambda x: slope(max_pool, x), axis, axis)(jnp.moveaxis(x, 0, axis))
    expected = jnp.stack([slope(lax_pool, one) for one in x])
    np.testing.assert_allclose(jnp.moveaxis(found, axis, 0), expected, atol=1e-6)


def test_padding_receives_no_gradient():
    x = jnp.full((1, 4, 4, 1), -jnp.inf).at[0, 3, 3, 0].set(1.0)
    maps, pull = jax.vjp(lambda x: max_pool(x, 3, 2, ((1, 1), (1, 1))), x)
    (gradient,) = pull(jnp.ones_like(maps))
    # The other windows hold -inf alone, and their first pixel is padding.
    assert float(gradient[0, 3, 3, 0]) == float(gradient.sum()) == 1.0


@pytest.mark.parametrize("axis", range(5))
def test_vmap(axis):
    x = jax.random.normal(jax.random.key(0), (3, 2, 8, 7, 4))

    def pool(x):
        return max_pool(x, 3, 2, ((1, 1), (1, 1)))

    found = jax.vmap(pool, axis)(jnp.moveaxis(x, 0, axis))
    np.testing.assert_array_equal(found, jnp.stack([pool(one) for one in x]))
    none = jax.vmap(pool)(x[:0])
    assert none.shape == (0, *found.shape[1:])
