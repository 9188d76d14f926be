"""Max-pooling by the compiled extension against XLA's, for every kind of pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.kernels import pooling
from cnn_jax.kernels.geometry import Geometry
from cnn_jax.models.pooling import max_pool
from tests.needs import needs
from tests.tiers import fast

pytestmark = needs("oneDNN")

NONE = ((0, 0), (0, 0))
# window, stride, padding, (batch, height, width, channels)
CASES = {
    "LeNet-5": (2, 2, NONE, (2, 6, 6, 6)),
    "odd map, one channel": (2, 2, NONE, (3, 7, 5, 1)),
    "ResNet's stem": (3, 2, ((1, 1), (1, 1)), (3, 8, 8, 4)),
    "Network in Network": (3, 2, ((0, 1), (0, 0)), (2, 8, 9, 9)),
    "windows apart": (2, 3, NONE, (2, 8, 8, 3)),
}
# Ties, NaN, and windows of -inf alone are frequent.
PIXELS = np.array([-np.inf, -1, 0, 1, np.inf, np.nan], np.float32)


def assert_equals_xla(window, stride, padding, shape, seed):
    random = np.random.default_rng(seed)
    x = jnp.asarray(random.choice(PIXELS, shape, p=[0.3, 0.2, 0.2, 0.2, 0.05, 0.05]))

    taps, strides = (window, window), (stride, stride)
    geometry = Geometry(shape[1:3], taps, strides, padding)
    cotangent = random.normal(size=(shape[0], *geometry.outputs(), shape[3]))

    def maps_and_gradient():
        @jax.jit  # a new function each time, which is traced anew
        def computed(x, cotangent):
            maps, pull = jax.vjp(lambda x: max_pool(x, window, stride, padding), x)
            return maps, *pull(cotangent)

        return computed(x, jnp.asarray(cotangent, jnp.float32))

    assert pooling.computes(x, geometry) == (min(geometry.outputs()) > 0)
    maps, gradient = maps_and_gradient()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNN_JAX_ONEDNN", "false")
        assert not pooling.computes(x, geometry)
        expected_maps, expected = maps_and_gradient()
    np.testing.assert_array_equal(maps, expected_maps)
    # The sums of overlapping windows may round in another order.
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("name", fast(["LeNet-5", "ResNet's stem"], CASES))
def test_the_same_pixels_are_the_largest(name):
    assert_equals_xla(*CASES[name], seed=0)


def test_a_place_outside_the_window_is_no_pixel():
    geometry = Geometry((4, 4), (2, 2), (2, 2), NONE)
    places = jnp.array([0, 3, 4, 255], jnp.uint8).reshape(1, 2, 2, 1)
    found = pooling.route(places, jnp.ones(places.shape), geometry)
    expected = np.zeros((4, 4))
    expected[0, 0] = expected[1, 3] = 1
    np.testing.assert_array_equal(found[0, :, :, 0], expected)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_window(data):
    window = data.draw(st.integers(1, 4), "window")
    pads = st.integers(0, window - 1)
    padding = data.draw(st.tuples(st.tuples(pads, pads), st.tuples(pads, pads)))
    sizes = st.tuples(*[st.integers(window, 9)] * 2)
    height, width = data.draw(sizes, "size")
    shape = (data.draw(st.integers(1, 3)), height, width, data.draw(st.integers(1, 9)))
    stride = data.draw(st.integers(1, 4), "stride")
    assert_equals_xla(window, stride, padding, shape, data.draw(st.integers(0, 9)))
