"""Batch norm's own derivative against autodiff, float64 and the compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.kernels import plain
from cnn_jax.models.layers import BatchNorm, GroupNorm
from cnn_jax.models.normalization import Sharing, normalize


def drawn(groups=2, values=24, channels=5, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    x = 3 + 2 * jax.random.normal(keys[0], (groups, values, channels), dtype)
    scale = jax.random.uniform(keys[1], (channels,), minval=0.5, maxval=2.0)
    bias = jax.random.normal(keys[2], (channels,))
    cotangent = jax.random.normal(keys[3], x.shape)
    return x, scale, bias, cotangent


def pulled(x, scale, bias, cotangent):
    def value(*inputs):
        return normalize(*inputs, Sharing())[0]

    y, pull = jax.vjp(value, x, scale, bias)
    return y, *pull(cotangent)


@pytest.mark.parametrize("groups", [1, 3])
def test_equals_what_autodiff_makes_of_the_definition(groups):
    inputs = drawn(groups)
    with plain.definitions():
        expected = jax.jit(lambda *each: pulled(*each))(*inputs)  # traced in here
    for ours, theirs in zip(jax.jit(pulled)(*inputs), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def in_float64(*inputs):
    x, scale, bias, g = (np.asarray(each, np.float64) for each in inputs)
    x, g, m = x[0], g[0], x.shape[1]
    mean, var = x.mean(0), x.var(0)
    xhat = (x - mean) / np.sqrt(var + 1e-5)
    # Ioffe and Szegedy (2015), section 3
    by_xhat = g * scale
    by_var = (by_xhat * (x - mean)).sum(0) * -0.5 * (var + 1e-5) ** -1.5
    by_mean = -by_xhat.sum(0) / np.sqrt(var + 1e-5) - 2 * by_var * (x - mean).mean(0)
    by_x = by_xhat / np.sqrt(var + 1e-5) + by_var * 2 * (x - mean) / m + by_mean / m
    return xhat * scale + bias, by_x, (g * xhat).sum(0), g.sum(0)


def test_equals_the_papers_equations_in_float64():
    inputs = drawn(1, 4096, 3)
    y, by_x, by_scale, by_bias = in_float64(*inputs)
    ours, ours_x, ours_scale, ours_bias = jax.jit(pulled)(*inputs)
    np.testing.assert_allclose(ours[0], y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours_x[0], by_x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours_scale, by_scale, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(ours_bias, by_bias, rtol=1e-4, atol=1e-3)


def test_a_large_mean_does_not_cancel():
    x = 1000 + jax.random.normal(jax.random.key(1), (1, 4096, 2))
    _, mean, var = normalize(x, jnp.ones(2), jnp.zeros(2), Sharing())
    np.testing.assert_allclose(mean[0], np.asarray(x, np.float64)[0].mean(0), rtol=1e-5)
    np.testing.assert_allclose(var[0], np.asarray(x, np.float64)[0].var(0), rtol=1e-6)


@pytest.mark.parametrize("mean", [100, 10_000])
def test_a_large_mean_costs_the_digits_of_its_own_rounding(mean):
    x, scale, bias, cotangent = drawn(1, 4096, 3)
    # along x; otherwise the derivative's term with the mean is nearly zero
    inputs = x + mean, scale, bias, cotangent + (x - 3) / 2
    y, by_x, *_ = in_float64(*inputs)
    ours, ours_x, *_ = jax.jit(pulled)(*inputs)
    deviation = 2
    rounding = np.finfo(np.float32).eps * mean / deviation
    bound = 4 * rounding * np.asarray(scale)
    assert (np.abs(ours[0] - y).max(0) < bound).all()
    assert (np.abs(ours_x[0] - by_x).max(0) < bound / deviation).all()


@pytest.mark.slow
def test_second_derivatives_and_forward_mode_within_plain_definitions():
    x, scale, bias, cotangent = drawn()

    def loss(x):
        return jnp.sin(normalize(x, scale, bias, Sharing())[0] * cotangent).sum()

    hessian_product = jax.jvp(jax.grad(loss), (x,), (cotangent,))[1]
    with plain.definitions():
        expected = jax.jvp(jax.grad(loss), (x,), (cotangent,))[1]
        _, tangent = jax.jvp(loss, (x,), (cotangent,))
    np.testing.assert_allclose(hessian_product, expected, rtol=1e-4, atol=1e-4)
    slope = (jax.grad(loss)(x) * cotangent).sum()
    np.testing.assert_allclose(tangent, slope, rtol=1e-4, atol=1e-4)


def test_half_precision_inputs_keep_their_type_and_float32_statistics():
    x, scale, bias, _ = drawn(1, dtype=jnp.bfloat16)
    (y, mean, _), pull = jax.vjp(lambda x: normalize(x, scale, bias, Sharing()), x)
    assert y.dtype == mean.dtype == jnp.float32
    zeros = jnp.zeros_like(mean)
    assert pull((jnp.ones_like(y), zeros, zeros))[0].dtype == jnp.bfloat16


def test_every_sum_of_a_step_runs_over_one_axis():
    """The property that makes it fast on CPU."""
    norm = BatchNorm(groups=2)
    x = jnp.ones((4, 6, 6, 3))
    variables = norm.init(jax.random.key(0), x, train=True)

    def value(variables, x):
        y, _ = norm.apply(variables, x, train=True, mutable=["batch_stats"])
        return y

    def step(variables, x, cotangent):
        return jax.vjp(value, variables, x)[1](cotangent)

    sums = [
        equation.params["axes"]
        for equation in jax.make_jaxpr(step)(variables, x, x).eqns
        if equation.primitive.name == "reduce_sum"
    ]
    assert len(sums) >= 4
    assert all(len(axes) == 1 for axes in sums)


def test_group_norm_is_the_papers_formula():
    """Wu and He 2018, equations 1 to 4: each image, each group of channels."""
    x = np.random.default_rng(0).normal(3, 2, size=(2, 4, 3, 6))
    norm = GroupNorm(groups=2)
    scale, bias = np.arange(1.0, 7.0), np.arange(6.0)
    params = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}
    expected = np.empty_like(x)
    for image in range(2):
        for part in (slice(0, 3), slice(3, 6)):
            values = x[image, ..., part]
            normal = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
            expected[image, ..., part] = normal * scale[part] + bias[part]
    for train in (True, False):
        found = norm.apply({"params": params}, jnp.asarray(x, jnp.float32), train)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
