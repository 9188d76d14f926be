"""The hook for linen's convolutions equals lax's function for every implementation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnn_jax import kernels
from cnn_jax.kernels.convolution import conv_general_dilated
from cnn_jax.kernels.extension import SWITCH
from tests.needs import skip_without
from tests.tiers import fast

LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.fixture(autouse=True, params=["onednn", "xla"])
def library(request, monkeypatch):
    if request.param == "onednn":
        skip_without("oneDNN")
    monkeypatch.setenv(SWITCH, str(request.param == "onednn"))
    assert kernels.library() == request.param


def close(found, expected, tolerance=1e-5):
    found, expected = np.asarray(found), np.asarray(expected)
    scale = max(float(np.abs(expected).max()), 1e-6)
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


@pytest.mark.parametrize(
    "padding", ["SAME", "VALID", ((0, 2), (3, 0)), ((4, 4), (5, 5))]
)
@pytest.mark.parametrize("strides", fast([(3, 2)], [(1, 1), (2, 1), (3, 2)]))
def test_paddings_and_strides_of_every_kind(padding, strides):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 7, 6, 5)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(3, 2, 5, 18)) / 5, jnp.float32)

    def loss(function, x, kernel):
        maps = function(x, kernel, strides, padding, dimension_numbers=LAYOUT)
        return jnp.sin(maps).sum()

    expected, found = (
        jax.jit(jax.value_and_grad(partial(loss, function), (0, 1)))(x, kernel)
        for function in (lax.conv_general_dilated, conv_general_dilated)
    )
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        close(ours, theirs)


def test_other_layouts_and_dilations_go_to_lax():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 5))
    found = conv_general_dilated(
        x, kernel, (1, 1), "SAME", rhs_dilation=(2, 2), dimension_numbers=LAYOUT
    )
    expected = lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", rhs_dilation=(2, 2), dimension_numbers=LAYOUT
    )
    close(found, expected)
    across = x.transpose(0, 3, 1, 2)
    found = conv_general_dilated(
        across, kernel, (1, 1), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW")
    )
    close(found.transpose(0, 2, 3, 1), call_same(x, kernel))
    one = conv_general_dilated(
        x[:, 0], kernel[0], (1,), "SAME", None, None, ("NWC", "WIO", "NWC")
    )
    assert one.shape == (2, 6, 5)


def call_same(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)
