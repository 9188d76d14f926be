"""The layers of LeNet-5, whose C3 applies a convolution that is no layer of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.analysis import gradients, landscape, layers, responses
from cnn_jax.models.lenet import c3_connections
from cnn_jax.training.losses import softmax_cross_entropy
from tests.models import drawn


@pytest.fixture(scope="module")
def lenet():
    net = models.create("lenet5", num_classes=10)
    return net, drawn.variables(net, 32, 32, 1)


@pytest.fixture(scope="module")
def batch():
    labels = jnp.arange(4, dtype=jnp.int32)
    return {
        "image": drawn.images(4, 32, 32, 1),
        "label": labels,
        "mask": jnp.ones(4),
    }


def test_lenet_has_the_papers_layers(lenet, batch):
    found = layers.weight_layers(*lenet, (32, 32, 1))
    assert list(found) == ["C1", "C3", "C5", "F6"]
    assert found["C3"] == ("C3", "kernel")
    rows = gradients.norms(*lenet, [batch], softmax_cross_entropy)
    assert [row["name"] for row in rows] == list(found)
    assert all(row["gradient_norm"] > 0 for row in rows)
    assert "C3" in responses.standard_deviations(*lenet, [batch])


def test_filters_of_c3_are_those_of_its_maps(lenet):
    params = lenet[1]["params"]
    noise = jax.tree.map(
        lambda leaf: np.random.default_rng(0).normal(size=leaf.shape), params
    )
    found = landscape.filter_normalized(noise, params)["C3"]["kernel"]
    _, maps = np.nonzero(c3_connections())
    for one in range(16):
        own = np.square(np.asarray(found)[:, :, maps == one]).sum()
        theirs = np.square(np.asarray(params["C3"]["kernel"])[:, :, maps == one]).sum()
        assert own == pytest.approx(theirs, rel=1e-5)
    first = np.square(np.asarray(found)[:, :, 0]).sum()
    assert first != pytest.approx(
        np.square(params["C3"]["kernel"][:, :, 0]).sum(), 0.01
    )
