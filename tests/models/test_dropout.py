"""Dropout in every network that has it: its rate, its scale, and evaluation."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from cnn_jax import models
from tests.models import drawn

NETS = {
    "alexnet": {"widths": (8, 16, 16, 16, 8), "hidden": (300, 200), "image_size": 67},
    "vgg11": {"widths": (4, 4, 4, 4, 8), "hidden": (300, 200), "image_size": 32},
    "nin_cifar": {"width": 0.25},
}


@pytest.mark.parametrize("name", NETS)
def test_a_share_of_the_values_is_dropped_and_the_others_are_scaled(name):
    rate = 0.3
    net = models.create(name, num_classes=3, dropout=rate, **NETS[name])
    side = NETS[name].get("image_size", 32)
    variables, images = (
        drawn.variables(net, side, side, 3),
        drawn.images(2, side, side, 3),
    )
    seen = []

    def record(call, arguments, keywords, context):
        after = call(*arguments, **keywords)
        if context.method_name == "__call__" and isinstance(context.module, nn.Dropout):
            seen.append((np.asarray(arguments[0]), np.asarray(after)))
        return after

    with nn.intercept_methods(record):
        net.apply(variables, images, True, rngs={"dropout": jax.random.key(0)})
        training = seen.copy()
        seen.clear()
        net.apply(variables, images, False)
    assert len(training) == len(seen) == 2
    for before, after in training:
        active = before != 0
        kept = active & (after != 0)
        assert abs(kept.sum() / active.sum() - (1 - rate)) < 0.08
        np.testing.assert_allclose(after[kept], before[kept] / (1 - rate), rtol=1e-5)
    for before, after in seen:
        np.testing.assert_array_equal(after, before)
