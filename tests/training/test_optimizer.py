"""Update rules against explicit values, and third-party optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import config as run_config
from cnn_jax.training import optimizer
from cnn_jax.training.program import Program
from tests import tiny

PARAMS = {"conv": {"kernel": np.float32([[3.0, -4.0]]), "bias": np.float32([12.0])}}


def uphill(learning_rate):
    """An update with the wrong sign: the gradient instead of its negative."""
    return optax.scale(learning_rate)


def without_rate(momentum: float = 0.9):
    return optax.trace(momentum)


def test_sgd_is_coupled_l2_then_momentum():
    """v <- m v + (g + d w); w <- w - r v, with explicit numbers for two steps."""
    rule = optimizer.sgd(0.5, momentum=0.9, weight_decay=0.1)
    w, gradient = {"kernel": jnp.array([2.0])}, {"kernel": jnp.array([1.0])}
    update, state = rule.update(gradient, rule.init(w), w)
    assert update["kernel"].item() == pytest.approx(-0.5 * (1.0 + 0.1 * 2.0))
    w = optax.apply_updates(w, update)
    assert w["kernel"].item() == pytest.approx(1.4)
    # another rate: it is not part of the velocity
    rule = optimizer.sgd(0.05, momentum=0.9, weight_decay=0.1)
    update, _ = rule.update(gradient, state, w)
    velocity = 0.9 * 1.2 + (1.0 + 0.1 * 1.4)
    assert update["kernel"].item() == pytest.approx(-0.05 * velocity)


def test_nesterov_looks_ahead():
    rule = optimizer.sgd(1.0, momentum=0.9, nesterov=True)
    w = {"kernel": jnp.array([0.0])}
    v, _ = rule.update({"kernel": jnp.array([1.0])}, rule.init(w), w)
    assert v["kernel"].item() == pytest.approx(-1.9)


@pytest.mark.parametrize(("decay", "decayed"), [("all", 0.1), ("kernels", 0.0)])
def test_what_decays(decay, decayed):
    rule = optimizer.sgd(1.0, weight_decay=0.1, decay=decay)
    params = {
        "conv": {"kernel": jnp.ones(1)},
        "bn": {"scale": jnp.ones(1), "bias": jnp.ones(1)},
    }
    zeros = jax.tree.map(jnp.zeros_like, params)
    update, _ = rule.update(zeros, rule.init(params), params)
    assert update["conv"]["kernel"].item() == pytest.approx(-0.1)
    assert update["bn"]["scale"].item() == pytest.approx(-decayed)
    assert update["bn"]["bias"].item() == pytest.approx(-decayed)


def test_adamw_decays_beside_the_adaptive_step():
    rule = optimizer.adamw(0.5, weight_decay=0.1)
    params = {"kernel": jnp.array([2.0])}
    update, _ = rule.update({"kernel": jnp.array([5.0])}, rule.init(params), params)
    # the first Adam direction is the sign of the gradient
    assert update["kernel"].item() == pytest.approx(-0.5 * (1.0 + 0.2), rel=1e-5)


def steps(rule, rates):
    """Parameters after steps with these rates, minimising |w|^2 / 2."""
    weights, state = PARAMS, rule(rates[0]).init(PARAMS)
    for rate in rates:
        updates, state = rule(rate).update(weights, state, weights)
        weights = optax.apply_updates(weights, updates)
    return weights["conv"]["kernel"]


def test_optaxs_adamw_is_ours():
    ours = {"name": "adamw", "weight_decay": 0.1, "decay": "all"}
    theirs = {"name": "optax:adamw", "weight_decay": 0.1}
    found = [
        steps(optimizer.build(section), (0.5, 0.1, 0.2)) for section in (ours, theirs)
    ]
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert (np.abs(found[0]) < np.abs(PARAMS["conv"]["kernel"])).all()


def test_a_rule_that_keeps_the_rate_in_its_state_has_that_of_each_step():
    """optax's LARS multiplies by the rate before the momentum."""
    rates = (0.5, 0.1, 0.2)
    rule = optimizer.build({"name": "optax:lars", "momentum": 0.9})
    expected = optax.lars(lambda step: jnp.asarray(rates)[step], momentum=0.9)
    weights, state = PARAMS, expected.init(PARAMS)
    for _ in rates:
        updates, state = expected.update(weights, state, weights)
        weights = optax.apply_updates(weights, updates)
    np.testing.assert_allclose(steps(rule, rates), weights["conv"]["kernel"], rtol=1e-6)


@pytest.mark.parametrize(("greatest", "scale"), [(0.0, 1), (20.0, 1), (6.5, 0.5)])
def test_a_gradient_above_the_greatest_norm_is_scaled_to_it(greatest, scale):
    """Pascanu et al. 2013: g / |g| times the threshold; |(3, -4, 12)| is 13."""
    rule = optimizer.build({"name": "sgd"}, clip_norm=greatest)(1.0)
    found, _ = rule.update(PARAMS, rule.init(PARAMS), PARAMS)
    for leaf, gradient in zip(*map(jax.tree.leaves, (found, PARAMS)), strict=True):
        np.testing.assert_allclose(leaf, -scale * gradient, rtol=1e-6)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"name": "optax:adamw", "learning_rate": 1.0},
            r"set learning_rate with config.schedule, .*'rates': \(1.0,\)",
        ),
        ({"name": "optax:scale_by_adam"}, "takes no learning_rate; expected a func"),
        ({"name": f"{__name__}:without_rate"}, "takes no learning_rate"),
        ({"name": "optax:adamw", "weight_decai": 1.0}, "did you mean 'weight_decay'"),
    ],
)
def test_a_rule_with_a_rate_of_its_own_or_none_is_refused(section, message):
    config = {**tiny.config(), "optimizer": section}
    with pytest.raises(ConfigError, match=message):
        run_config.check(config)


def test_an_update_of_the_wrong_sign_is_refused_before_anything_trains():
    config = {**tiny.config(), "optimizer": {"name": f"{__name__}:uphill"}}
    with pytest.raises(ConfigError, match=r"uphill' increases the loss: its updates"):
        Program(config)


@pytest.mark.parametrize("name", ["adamw", "lion", "rprop", "lamb", "adafactor"])
def test_optaxs_optimizers_descend(name):
    rule = optimizer.build({"name": f"optax:{name}"})
    optimizer.check_descends(name, rule, PARAMS)


def test_an_optimizer_that_needs_more_than_gradients_is_refused_in_a_line():
    rule = optimizer.build({"name": "optax:lbfgs"})
    with pytest.raises(
        ConfigError, match="update of optimizer 'optax:lbfgs' fails: "
    ) as found:
        optimizer.check_descends("optax:lbfgs", rule, PARAMS)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimizer.sgd(0.1, momentum=1.0), "momentum 1.0"),
        (
            lambda: optimizer.sgd(0.1, weight_decay=-1.0),
            "weight_decay must be .* got -1.0",
        ),
        (
            lambda: optimizer.build({"name": "sgd", "decay": "some"}),
            "decay must be one of 'all', 'kernels', got 'some'",
        ),
        (
            lambda: run_config.check({**tiny.config(), "clip_norm": -1.0}),
            "clip_norm must be finite and not negative, got -1.0",
        ),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
