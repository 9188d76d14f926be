"""Rates at the paper's steps, and the update rules, against written-out values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.names import ConfigError
from cnn_jax.train import optimizer
from configs import degradation_cifar10


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.1),
        (399, 0.1),
        (400, 0.1),
        (31_999, 0.1),
        (32_000, 0.01),
        (48_000, 0.001),
        (63_999, 0.001),
    ],
)
def test_the_papers_schedule(step, rate):
    """He et al. 2015, section 4.2: 0.1, a tenth at 32k and at 48k, end at 64k."""
    section = degradation_cifar10.get_config().run.schedule.to_dict()
    section.pop("name")
    assert float(optimizer.piecewise(**section)(jnp.int32(step))) == np.float32(rate)


@pytest.mark.parametrize(
    ("step", "warming", "rate"),
    [
        (0, True, 0.01),
        (399, True, 0.01),
        (400, False, 0.1),
        (31_999, False, 0.1),
        (32_000, False, 0.01),
        (48_000, False, 0.001),
        (63_999, False, 0.001),
    ],
)
def test_the_papers_warmup_at_depth_110(step, warming, rate):
    """0.01 until the error has fallen (here at step 400), then the schedule."""
    config = degradation_cifar10.get_config()
    section = config.run.schedule.to_dict()
    section.pop("name")
    warmup = optimizer.Warmup(**config.overrides["depth110"].warmup.to_dict())
    assert warmup.until_train_error == 0.8
    schedule = optimizer.piecewise(**section)
    found = optimizer.current_rate(schedule, warmup, jnp.int32(step), warming)
    assert float(found) == np.float32(rate)


def test_sgd_is_coupled_l2_then_momentum():
    """v <- m v + (g + d w); w <- w - r v, with the numbers of two steps by hand."""
    rule = optimizer.sgd(momentum=0.9, weight_decay=0.1)
    w = {"kernel": jnp.array([2.0])}
    state = rule.init(w)
    v1, state = rule.update({"kernel": jnp.array([1.0])}, state, w)
    assert v1["kernel"].item() == pytest.approx(1.0 + 0.1 * 2.0)
    w = jax.tree.map(lambda a, b: a - 0.5 * b, w, v1)  # 2 - 0.6 = 1.4
    v2, _ = rule.update({"kernel": jnp.array([1.0])}, state, w)
    assert v2["kernel"].item() == pytest.approx(0.9 * 1.2 + (1.0 + 0.1 * 1.4))


def test_nesterov_looks_ahead():
    rule = optimizer.sgd(momentum=0.9, nesterov=True)
    w = {"kernel": jnp.array([0.0])}
    v, _ = rule.update({"kernel": jnp.array([1.0])}, rule.init(w), w)
    assert v["kernel"].item() == pytest.approx(1.9)


@pytest.mark.parametrize(("decay", "decayed"), [("all", 0.1), ("kernels", 0.0)])
def test_what_decays(decay, decayed):
    rule = optimizer.sgd(weight_decay=0.1, decay=decay)
    params = {
        "conv": {"kernel": jnp.ones(1)},
        "bn": {"scale": jnp.ones(1), "bias": jnp.ones(1)},
    }
    zeros = jax.tree.map(jnp.zeros_like, params)
    update, _ = rule.update(zeros, rule.init(params), params)
    assert update["conv"]["kernel"].item() == pytest.approx(0.1)
    assert update["bn"]["scale"].item() == pytest.approx(decayed)
    assert update["bn"]["bias"].item() == pytest.approx(decayed)


def test_adamw_decays_beside_the_adaptive_step():
    rule = optimizer.adamw(weight_decay=0.1)
    params = {"kernel": jnp.array([2.0])}
    update, _ = rule.update({"kernel": jnp.array([5.0])}, rule.init(params), params)
    # the first Adam direction is the sign of the gradient
    assert update["kernel"].item() == pytest.approx(1.0 + 0.2, rel=1e-5)


def test_cosine_rises_then_falls_to_nothing():
    rate = optimizer.cosine(0.4, steps=100, warmup_steps=10)
    assert float(rate(jnp.int32(0))) == 0
    assert float(rate(jnp.int32(5))) == pytest.approx(0.2)
    assert float(rate(jnp.int32(10))) == pytest.approx(0.4)
    assert float(rate(jnp.int32(55))) == pytest.approx(0.2)
    assert float(rate(jnp.int32(100))) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimizer.piecewise((0.1, 0.01), ()), "2 rates need 1 boundaries"),
        (lambda: optimizer.piecewise((0.3, 0.2, 0.1), (9, 5)), "must increase"),
        (lambda: optimizer.sgd(momentum=1.0), "momentum 1.0"),
        (lambda: optimizer.sgd(weight_decay=-1.0), "weight_decay -1.0"),
        (
            lambda: names.build(
                "optimizer", {"name": "sgd", "decay": "some"}, optimizer.OPTIMIZERS
            ),
            "decay must be one of 'all', 'kernels', got 'some'",
        ),
        (lambda: optimizer.cosine(0.1, 5, 9), "warmup_steps 9"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
