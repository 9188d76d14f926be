"""Gradients at nearby inputs: known results for lines, noise and depth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.analysis import shattered
from cnn_jax.models.layers import GroupNorm
from tests.analysis import nets


def test_autocorrelation_of_a_line_and_of_noise():
    series = np.arange(5.0)
    # Centred: -2 -1 0 1 2, whose squares add up to 10.
    expected = [1, (2 + 0 + 0 + 2) / 10, (0 - 1 + 0) / 10]
    np.testing.assert_allclose(shattered.autocorrelation(series, 3), expected)
    noise = np.random.default_rng(0).normal(size=100_000)
    found = shattered.autocorrelation(noise, 4)
    np.testing.assert_allclose(found, [1, 0, 0, 0], atol=0.02)
    assert np.isnan(shattered.autocorrelation(np.ones(5), 2)).all()


def test_the_grid_net_is_its_own_derivative():
    """Without ReLU's kinks in a step, the derivative is a difference quotient."""
    key = jax.random.key(0)
    fine = np.array(shattered.grid_gradients(key, 1, 5, 4001, 1.0, 0.0))
    # A branch of scale 0 leaves the first, linear layer: a constant derivative.
    first, _, _, last = jax.random.split(key, 4)
    slopes, readout = jax.random.normal(first, (5,)), jax.random.normal(last, (5,))
    np.testing.assert_allclose(fine, float(slopes @ readout) / np.sqrt(5), rtol=1e-5)


def test_a_layer_of_the_grid_net_is_normalised_and_has_the_gain_of_he():
    key, x = jax.random.key(3), np.linspace(-2, 2, 10)[:, None]
    found = np.array(shattered.grid_gradients(key, 1, 5, 10, 0.5, 2.0))
    keys = jax.random.split(key, 4)
    slopes, offsets, readout = (
        np.array(jax.random.normal(keys[place], (5,))) for place in (0, 1, 3)
    )
    kernel = np.sqrt(2 / 5) * np.array(jax.random.normal(keys[2], (1, 5, 5)))[0]
    h = x * slopes + offsets
    active = np.where(h > h.mean(0), slopes / np.sqrt(h.var(0) + 1e-5), 0.0)
    expected = (0.5 * slopes + 2 * active @ kernel) @ readout / np.sqrt(5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_depth_shatters_the_gradients_of_plain_nets():
    def neighbours(depth, skip, beta):
        found = [
            shattered.autocorrelation(
                np.array(
                    shattered.grid_gradients(
                        jax.random.key(seed), depth, 30, 64, skip, beta
                    )
                ),
                2,
            )[1]
            for seed in range(10)
        ]
        return np.mean(found)

    shallow, deep = neighbours(2, 0.0, 1.0), neighbours(30, 0.0, 1.0)
    residual = neighbours(30, 1.0, 0.1)
    assert shallow > 0.5
    assert deep < 0.2
    assert residual > deep + 0.3


def test_statistics_are_those_of_the_batch():
    net, variables = nets.build()
    batch = nets.batch(6)
    found = shattered.with_batch_statistics(net, variables, batch)
    kernel = variables["params"]["stem_conv"]["kernel"]
    maps = jax.lax.conv_general_dilated(
        batch["image"],
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    maps = np.array(maps).reshape(-1, 2)
    stats = found["batch_stats"]["stem_bn"]
    np.testing.assert_allclose(stats["mean"], maps.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["var"], maps.var(0, ddof=1), rtol=1e-4)
    assert found["params"] is variables["params"]
    lenet = models.create("lenet5_modern", 3)
    with pytest.raises(ValueError, match="'norm'") as error:
        shattered.with_batch_statistics(lenet, variables, batch)
    assert error.type is ValueError  # a ConfigError would stop the other analyses


def test_a_network_without_batch_norm_has_no_statistics_to_replace():
    net, variables = nets.build(norm=functools.partial(GroupNorm, groups=2))
    batch = nets.batch(6)
    found = shattered.with_batch_statistics(net, variables, batch)
    assert found is variables
    found = shattered.input_correlations(
        net, found, batch, np.zeros(1), jax.random.key(0)
    )
    assert found[0] == pytest.approx(1, abs=1e-6)


def test_correlations_fall_with_distance_and_begin_at_one():
    net, variables = nets.build()
    found = shattered.input_correlations(
        net, variables, nets.batch(6), np.array([0.0, 1e-4, 3.0]), jax.random.key(0)
    )
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert found[0] + 1e-6 >= found[1] > found[2]
    assert found[2] < 0.99


def test_a_masked_image_has_no_part_in_the_correlation():
    net, variables = nets.build()
    batch = nets.batch(6)  # the last one is padding
    other = {**batch, "image": batch["image"].at[-1].multiply(-1)}
    found = [
        shattered.input_correlations(
            net, variables, each, np.array([1.0]), jax.random.key(0)
        )
        for each in (batch, other, {**other, "mask": jnp.ones(6)})
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0] != pytest.approx(found[2], abs=1e-3)


def test_large_and_vanishing_gradients_have_a_cosine():
    one = jnp.array([[3e25, 4e25], [0.0, 0.0], [1e-25, 0.0]])
    other = jnp.array([[4e25, 3e25], [1.0, 1.0], [1e-25, 0.0]])
    cosine = shattered.mean_cosine(one, other, jnp.ones(3))
    assert float(cosine) == pytest.approx((0.96 + 1) / 2)
