"""AlexNet: layers against NumPy, towers, initialisation and errors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, names
from cnn_jax.models.alexnet import local_response_norm
from tests.models import drawn

NARROW = {"widths": (4, 8, 6, 6, 4), "hidden": (10, 12)}
SMALL = {**NARROW, "image_size": 67}  # the smallest size for the paper's stem


def test_local_response_norm_is_the_formula_of_the_paper():
    x = np.random.default_rng(0).normal(0, 40, size=(2, 3, 3, 9))
    expected = np.empty_like(x)
    for i in range(9):
        near = x[..., max(0, i - 2) : min(8, i + 2) + 1]
        expected[..., i] = x[..., i] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    found = local_response_norm(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # ... and changes such activations
    assert np.abs(x / 2**0.75 - expected).max() > 0.5


@pytest.mark.slow
def test_second_layer_of_two_towers_is_a_grouped_convolution():
    net = models.create("alexnet", num_classes=5, initializer="he", **SMALL)
    variables, images = drawn.variables(net, 67, 67, 3), drawn.images(1, 67, 67, 3)
    _, state = net.apply(variables, images, train=False, capture_intermediates=True)
    seen = jax.tree.map(np.asarray, state["intermediates"])
    first = np.maximum(seen["conv1"]["__call__"][0], 0)
    first = np.asarray(local_response_norm(jnp.asarray(first)))
    pooled = np.stack(  # 15 x 15 to 7 x 7 by overlapping windows
        [
            [
                first[0, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max((0, 1))
                for c in range(7)
            ]
            for r in range(7)
        ]
    )
    padded = np.pad(pooled, ((2, 2), (2, 2), (0, 0)))
    kernel = np.asarray(variables["params"]["conv2"]["kernel"])
    assert kernel.shape == (5, 5, 2, 8)
    expected = np.zeros((7, 7, 8))
    for out in range(8):
        tower = padded[..., :2] if out < 4 else padded[..., 2:]
        for r in range(7):
            for c in range(7):
                window = tower[r : r + 5, c : c + 5]
                expected[r, c, out] = (window * kernel[..., out]).sum()
    expected += np.asarray(variables["params"]["conv2"]["bias"])
    found = seen["conv2"]["__call__"][0][0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def inputs(net, variables, images):
    """The input of each layer of a net, by layer name."""

    @jax.jit  # one program is quicker than one for each operation
    def run(variables, images):
        seen = {}

        def record(next_method, args, kwargs, context):
            if context.method_name == "__call__":
                seen[context.module.name or ""] = args[0]
            return next_method(*args, **kwargs)

        with nn.intercept_methods(record):
            net.apply(variables, images, train=False)
        return seen

    return run(variables, images)


def test_the_second_layer_too_is_normalised_by_its_neighbours():
    """Section 3.3: after the first and the second convolution, then the max-pool."""
    net = models.create("alexnet", num_classes=5, initializer="he", **SMALL)
    variables, images = drawn.variables(net, 67, 67, 3), drawn.images(1, 67, 67, 3)
    seen = inputs(net, variables, images)

    @jax.jit
    def by_hand(params, x):
        conv = nn.Conv(8, (5, 5), padding=2, feature_group_count=2)
        x = nn.relu(conv.apply({"params": params}, x))
        return nn.max_pool(local_response_norm(x), (3, 3), (2, 2))

    expected = by_hand(variables["params"]["conv2"], seen["conv2"])
    np.testing.assert_allclose(seen["conv3"], expected, rtol=1e-4, atol=1e-5)


def test_weights_start_as_in_section_5():
    net = models.create(
        "alexnet", num_classes=5, image_size=67, hidden=(64, 64), widths=(32,) * 5
    )
    images = jnp.zeros((1, 67, 67, 3))
    init = jax.jit(lambda key: net.init(key, images, train=False))
    params = init(jax.random.key(0, impl="rbg"))["params"]  # compiles fast
    ones = {name for name, layer in params.items() if (layer["bias"] == 1).all()}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert all((params[name]["bias"] == 0).all() for name in set(params) - ones)
    for layer in params.values():
        assert np.std(layer["kernel"]) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(
    ("place", "expected"),
    [("output", "fc6 drop fc7 drop fc8"), ("input", "drop fc6 drop fc7 fc8")],
)
def test_dropout_at_the_hidden_layers(place, expected):
    net = models.create("alexnet", num_classes=5, dropout_at=place, **SMALL)
    order = []

    def record(next_method, args, kwargs, context):
        if context.method_name == "__call__" and context.module.path:
            order.append(context.module.name)
        return next_method(*args, **kwargs)

    with nn.intercept_methods(record):
        drawn.shapes(net, 67, 67, 3)
    found = ["drop" if name.startswith("Dropout") else name for name in order]
    assert found[5:] == expected.split()


def test_stem_for_small_images():
    net = models.create(
        "alexnet", num_classes=3, image_size=32, stem=(5, 1, 2), **NARROW
    )
    shapes = drawn.shapes(net, 32, 32, 3)
    assert shapes["params"]["conv1"]["kernel"].shape == (5, 5, 3, 4)
    assert shapes["params"]["fc6"]["kernel"].shape == (3 * 3 * 4, 10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 66}, "the least is 67"),
        ({"widths": (96, 255, 384, 384, 256)}, "divisible by the 2 towers"),
        ({"widths": (96, 256)}, "5 positive numbers"),
        ({"towers": 3}, "towers must be one of 1, 2, got 3"),
        ({"stem": (11, 4)}, r"stem must be \(kernel, stride, padding\)"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"hidden": (0, 4)}, "hidden must be positive"),
    ],
)
def test_fields_that_make_no_net(fields, message):
    with pytest.raises(names.ConfigError, match=message):
        models.create("alexnet", num_classes=10, **fields)
