"""VGG: batch norm, the CIFAR adaptation, and invalid fields."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, names
from tests.models import drawn

SMALL = {"widths": (2, 3, 4, 5, 6), "image_size": 32}


def shapes(name, size=32, **fields):
    return drawn.shapes(models.create(name, num_classes=7, **fields), size, size, 3)


def test_batch_norm_takes_the_place_of_the_bias():
    without = shapes("vgg11", hidden=(), **SMALL)
    with_norm = shapes("vgg11", hidden=(), batch_norm=True, **SMALL)
    assert set(without["params"]["conv1_1"]) == {"kernel", "bias"}
    assert set(with_norm["params"]["conv1_1"]) == {"kernel"}
    assert set(with_norm["batch_stats"]) == {
        f"bn{stage}_{n}"
        for stage, n in ("11", "21", "31", "32", "41", "42", "51", "52")
    }


def test_cifar_adaptation_by_fields():
    small = {**SMALL, "widths": (64, 128, 256, 512, 512)}
    bare = shapes("vgg16", hidden=(), **small)["params"]
    assert bare["fc6"]["kernel"].shape == (512, 7)
    two = shapes("vgg16", hidden=(512, 512), **small)["params"]
    assert two["fc6"]["kernel"].shape == (512, 512)
    assert two["fc8"]["kernel"].shape == (512, 7)


def test_c_has_three_convolutions_of_1x1():
    params = shapes("vgg16_c", hidden=(), **SMALL)["params"]
    ones = {
        name for name, layer in params.items() if layer["kernel"].shape[:2] == (1, 1)
    }
    assert ones == {"conv3_3", "conv4_3", "conv5_3"}


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        ("glorot", lambda inputs, outputs: 2 / (inputs + outputs)),
        ("he", lambda inputs, outputs: 2 / inputs),
    ],
)
def test_initial_weights_have_the_variance_of(initializer, variance):
    net = models.create(
        "vgg11", num_classes=3, hidden=(50, 50), initializer=initializer, **SMALL
    )
    images = jnp.zeros((1, 32, 32, 3))
    init = jax.jit(lambda key: net.init(key, images, train=False))
    params = init(jax.random.key(0, impl="rbg"))["params"]  # compiles fast
    for layer in params.values():
        *taps, inputs, outputs = layer["kernel"].shape
        area = np.prod(taps, dtype=int)
        expected = variance(area * inputs, area * outputs)
        # four standard errors of the variance of normal values
        error = 4 * (2 / layer["kernel"].size) ** 0.5
        assert np.var(layer["kernel"]) == pytest.approx(expected, rel=error)


def test_every_hidden_layer_has_a_relu():
    """Section 2.1: all hidden layers are equipped with it; the output is not."""
    net = models.create("vgg11", num_classes=3, hidden=(50, 40), **SMALL)
    variables, images = drawn.variables(net, 32, 32, 3), drawn.images(2, 32, 32, 3)

    @jax.jit
    def calls(variables):
        given, made = {}, {}

        def record(next_method, args, kwargs, context):
            output = next_method(*args, **kwargs)
            if context.method_name == "__call__" and context.module.path:
                given[context.module.name] = args[0]
                made[context.module.name] = output
            return output

        with nn.intercept_methods(record):
            net.apply(variables, images, train=False)
        return given, made

    given, made = calls(variables)
    for before, after in (("fc6", "fc7"), ("fc7", "fc8")):
        assert made[before].min() < 0
        np.testing.assert_array_equal(given[after], np.maximum(made[before], 0))
    convolutions = [name for name in made if name.startswith("conv")]
    assert len(convolutions) == 8
    assert all(given[name].min() >= 0 for name in [*convolutions[1:], "fc6"])
    assert any(made[name].min() < 0 for name in convolutions)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 31}, "the least is 32"),
        ({"widths": (64, 128)}, "5 positive numbers"),
        ({"configuration": "F"}, "must be one of 'A', 'B', 'C', 'D', 'E', got 'F'"),
        ({"hidden": (0,)}, "hidden must be positive"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_fields_that_make_no_net(fields, message):
    with pytest.raises(names.ConfigError, match=message):
        models.create("vgg16", num_classes=10, **fields)
