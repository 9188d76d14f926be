"""Network in Network: pooling, dropout and the final average pooling."""

import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, names
from cnn_jax.models.nin import max_pool_covering
from tests.models import drawn
from tests.tiers import fast


@pytest.mark.parametrize("size", fast([4, 13], [2, 3, 4, 5, 8, 13, 32]))
def test_pooling_covers_the_right_and_lower_edge(size):
    x = np.random.default_rng(0).normal(size=(1, size, size, 2)).astype(np.float32)
    windows = -(-(size - 3) // 2) + 1
    expected = [
        [
            x[0, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].max((0, 1))
            for column in range(windows)
        ]
        for row in range(windows)
    ]
    np.testing.assert_array_equal(max_pool_covering(jnp.asarray(x))[0], expected)


@pytest.mark.parametrize(("layout", "after"), [("cifar", {1, 2}), ("imagenet", {3})])
def test_dropout_follows_the_pooling_of(layout, after):
    net = models.create(f"nin_{layout}", num_classes=3, width=0.05)
    images = jnp.zeros((1, 67, 67, 3))
    order = []

    def record(next_method, args, kwargs, context):
        if context.method_name == "__call__" and len(context.module.path) == 1:
            order.append(context.module.name)
        return next_method(*args, **kwargs)

    def run():
        with nn.intercept_methods(record):
            net.init(jax.random.key(0), images, train=False)

    jax.eval_shape(run)
    found = {
        int(before.removeprefix("mlpconv"))
        for before, here in itertools.pairwise(order)
        if here.startswith("Dropout")
    }
    assert found == after
    assert len([name for name in order if name.startswith("Dropout")]) == len(after)


def test_class_score_is_the_mean_of_its_map():
    net = models.create("nin_cifar", num_classes=3, width=0.05)
    variables, images = drawn.variables(net, 16, 16, 3), drawn.images(2, 16, 16, 3)
    apply = partial(net.apply, train=False, capture_intermediates=True)
    logits, state = jax.jit(apply)(variables, images)
    maps = state["intermediates"]["mlpconv3"]["__call__"][0]
    assert maps.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(logits, np.asarray(maps).mean((1, 2)), rtol=1e-5)
    assert (logits >= 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layout": "mnist"}, "must be one of 'cifar', 'imagenet', got 'mnist'"),
        ({"width": 0.0}, "width must be positive"),
        ({"dropout": 1.5}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_fields_that_make_no_net(fields, message):
    with pytest.raises(names.ConfigError, match=message):
        models.create("nin_cifar", num_classes=10, **fields)
