"""Learning rates at the papers' steps, against explicit values."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.names import ConfigError
from cnn_jax.training import schedule
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
    """He et al. 2015, section 4.2: 0.1, divided by 10 at 32k and 48k, end at 64k."""
    section = degradation_cifar10.get_config().run.schedule.to_dict()
    section.pop("name")
    assert float(schedule.piecewise(**section)(jnp.int32(step))) == np.float32(rate)


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
    warmup = schedule.Warmup(**config.overrides["depth110"].warmup.to_dict())
    assert warmup.until_train_error == 0.8
    scheduled = schedule.piecewise(**section)
    found = schedule.current_rate(scheduled, warmup, jnp.int32(step), warming)
    assert float(found) == np.float32(rate)


def test_cosine_rises_then_falls_to_nothing():
    rate = schedule.cosine(0.4, steps=100, warmup_steps=10)
    assert float(rate(jnp.int32(0))) == 0
    assert float(rate(jnp.int32(5))) == pytest.approx(0.2)
    assert float(rate(jnp.int32(10))) == pytest.approx(0.4)
    assert float(rate(jnp.int32(55))) == pytest.approx(0.2)
    assert float(rate(jnp.int32(100))) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("batch_size", "step", "rate"),
    [
        (8192, 0, 0.1),
        (8192, 50, 0.1 + (3.2 - 0.1) / 2),
        (8192, 100, 3.2),
        (8192, 299, 3.2),
        (8192, 300, 0.32),
        (256, 0, 0.1),
        (256, 50, 0.1),
        (256, 300, 0.01),
    ],
)
def test_rates_grow_with_the_batch_from_that_of_256_images(batch_size, step, rate):
    """Goyal et al. 2017, sections 2.1 and 2.2: 0.1 for 256, 3.2 for 8,192 images."""
    scheduled = schedule.piecewise(
        (0.1, 0.01), (300,), warmup_steps=100, per_images=256, batch_size=batch_size
    )
    assert float(scheduled(jnp.int32(step))) == pytest.approx(rate, rel=1e-5)
    if step < 300:  # the cosine schedule rises in the same way
        scheduled = schedule.cosine(0.1, 1000, 100, 256, batch_size)
        expected = rate * (1 + np.cos(np.pi * max(step - 100, 0) / 900)) / 2
        assert float(scheduled(jnp.int32(step))) == pytest.approx(expected, rel=1e-5)


def test_without_a_batch_size_the_rise_is_from_nothing():
    scheduled = schedule.piecewise((0.4, 0.04), (300,), warmup_steps=100)
    found = [float(scheduled(jnp.int32(step))) for step in (0, 25, 100, 300)]
    assert found == pytest.approx([0, 0.1, 0.4, 0.04])


def test_a_schedule_of_optax_by_its_name():
    section = {"name": "optax:exponential_decay", "init_value": 0.5}
    section |= {"transition_steps": 10, "decay_rate": 0.1}
    scheduled = names.build("schedule", section, schedule.SCHEDULES, batch_size=8)
    found = schedule.current_rate(scheduled, schedule.Warmup(), jnp.int32(20), False)
    assert float(found) == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule.piecewise((0.1, 0.01), ()), "2 rates need 1 boundaries"),
        (lambda: schedule.piecewise((), ()), "schedule.rates is empty"),
        (lambda: schedule.piecewise((0.3, 0.2, 0.1), (9, 5)), "must increase"),
        (lambda: schedule.piecewise((0.2, 0.1), (-1,)), r"not be negative, got \(-1,"),
        (
            lambda: schedule.piecewise((0.1, 0.2), (5,), 6),
            r"must be in \[0, 5\], .* got 6",
        ),
        (lambda: schedule.piecewise((0.1,), (), 0, -1), "per_images -1 is negative"),
        (lambda: schedule.cosine(0.1, 5, 9), "warmup_steps must be .* got 9"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
