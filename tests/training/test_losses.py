"""Losses against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import losses

OUTPUTS = np.array([[-1.0, -30.0, -4.0], [-90.0, -80.0, -70.0]])
BATCH = {"label": jnp.array([0, 1])}


def test_softmax_cross_entropy_is_the_negative_log_likelihood():
    found = losses.softmax_cross_entropy(jnp.asarray(OUTPUTS, jnp.float32), BATCH)
    p = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, -np.log([p[0, 0], p[1, 1]]), rtol=1e-5)


def test_label_smoothing_shares_a_tenth_among_all_classes():
    """Szegedy et al. 2016, section 7: 0.9 for the label, and 0.1 / K for each class."""
    found = losses.softmax_cross_entropy(
        jnp.asarray(OUTPUTS, jnp.float32), BATCH, label_smoothing=0.1
    )
    logs = np.log(np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(-1, keepdims=True))
    target = np.full((2, 3), 0.1 / 3)
    target[[0, 1], [0, 1]] += 0.9
    np.testing.assert_allclose(found, -(target * logs).sum(-1), rtol=1e-5)


@pytest.mark.parametrize("j", [0.5, 20.0, 75.0])
def test_map_loss_is_equation_9(j):
    found = losses.map_loss(jnp.asarray(OUTPUTS, jnp.float32), BATCH, j=j)
    penalties = -OUTPUTS
    expected = np.array([penalties[0, 0], penalties[1, 1]]) + np.log(
        np.exp(-j) + np.exp(-penalties).sum(-1)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_map_loss_spares_penalties_beyond_j():
    def gradient(j):
        outputs = jnp.asarray(OUTPUTS[1:], jnp.float32)
        batch = {"label": BATCH["label"][1:]}
        return jax.grad(lambda o: losses.map_loss(o, batch, j=j).sum())(outputs)[0]

    # Class 2 (penalty 70) wrongly wins: its penalty is raised unless far beyond j.
    assert gradient(100.0)[2] == pytest.approx(1.0, abs=1e-3)
    assert gradient(50.0)[2] == pytest.approx(0.0, abs=1e-6)
    assert gradient(50.0)[1] == pytest.approx(-1.0, abs=1e-3)


@pytest.mark.parametrize("j", [0.0, -1.0, float("inf")])
def test_map_losss_constant_is_positive(j):
    with pytest.raises(ConfigError, match=r"loss.j .* is not positive"):
        losses.map_loss(jnp.asarray(OUTPUTS, jnp.float32), BATCH, j=j)


def test_losses_are_float32_for_bfloat16_outputs():
    outputs = jnp.asarray(OUTPUTS, jnp.bfloat16)
    assert losses.softmax_cross_entropy(outputs, BATCH).dtype == jnp.float32
    assert losses.map_loss(outputs, BATCH, j=1.0).dtype == jnp.float32


def test_map_loss_is_a_config_name():
    assert losses.LOSSES["map"] is losses.map_loss
