"""LeNet-5 against the paper and against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from cnn_jax import models, names
from cnn_jax.models import lenet
from cnn_jax.models.__main__ import summary_of
from tests.models import drawn

# Table I by columns: the inputs of each map of C3.
COLUMNS = [
    *("012", "123", "234", "345", "450", "501"),
    *("0123", "1234", "2345", "3450", "4501", "5012", "0134", "1245", "0235"),
    "012345",
]


def squash(x):
    return 1.7159 * np.tanh(2 * x / 3)


def correlate(x, kernel, bias):
    """Valid 2-d correlation of (n, h, w, c) by (k, k, c, m), by its definition."""
    windows = sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nhwcij,ijcm->nhwm", windows, kernel) + bias


def subsample(x, coefficient, bias):
    n, h, w, c = x.shape
    total = x.reshape(n, h // 2, 2, w // 2, 2, c).sum((2, 4))
    return total * coefficient + bias


def numpy_lenet5(p, x):
    """The net of 1998, map by map."""
    x = squash(correlate(x, p["C1"]["kernel"], p["C1"]["bias"]))
    x = squash(subsample(x, p["S2"]["coefficient"], p["S2"]["bias"]))
    kernels = dict(
        zip(
            sorted((int(s), m) for m, column in enumerate(COLUMNS) for s in column),
            np.moveaxis(p["C3"]["kernel"], -1, 0),
            strict=True,
        )
    )
    maps = [
        sum(
            correlate(x[..., [int(s)]], kernels[int(s), m][..., None, None], 0)
            for s in column
        )
        for m, column in enumerate(COLUMNS)
    ]
    x = squash(np.concatenate(maps, -1) + p["C3"]["bias"])
    x = squash(subsample(x, p["S4"]["coefficient"], p["S4"]["bias"]))
    x = squash(correlate(x, p["C5"]["kernel"], p["C5"]["bias"]))[:, 0, 0]
    x = squash(x @ p["F6"]["kernel"] + p["F6"]["bias"])
    return -((x[:, None] - lenet.digit_codes()) ** 2).sum(-1)


def test_outputs_agree_with_numpy():
    net = models.create("lenet5", num_classes=10)
    variables = drawn.variables(net, 32, 32, 1)
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 1))
    apply = jax.jit(lambda v, x: net.apply(v, x, train=False))
    found = apply(variables, jnp.asarray(images, jnp.float32))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    expected = numpy_lenet5(params["params"], images)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert expected.max() < 0


def test_c3_map_receives_gradient_from_exactly_its_inputs():
    layer = lenet.TableConv()
    x = drawn.images(1, 5, 5, 6)
    kernel, bias = drawn.images(5, 5, 60), jnp.zeros(16)
    variables = {"params": {"kernel": kernel, "bias": bias}}
    outputs = jax.jit(jax.jacobian(lambda x: layer.apply(variables, x)[0, 0, 0]))
    jacobian = outputs(x)
    sees = np.abs(jacobian[:, 0]).sum((1, 2)) > 0
    for index, column in enumerate(COLUMNS):
        assert set(np.flatnonzero(sees[index])) == {int(s) for s in column}
    assert sees.sum() == 60


def test_connections_of_the_paper():
    layers = {layer.name: layer for layer in summary_of("lenet5", {}).layers}

    def positions(name):
        return np.prod(layers[name].output[:-1], dtype=int)

    connections = {
        name: layers[name].parameters * positions(name)
        for name in ("C1", "C3", "C5", "F6")
    }
    for name in ("S2", "S4"):  # four inputs and a bias
        connections[name] = 5 * np.prod(layers[name].output)
    connections["output"] = lenet.digit_codes().size
    assert connections["C1"] == 122_304
    assert connections["C3"] == 151_600
    assert sum(connections.values()) == 340_908


def test_digit_codes_are_distinct_bitmaps_of_ink_and_paper():
    codes = lenet.digit_codes()
    assert codes.shape == (10, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    differing = (codes[:, None] != codes[None]).sum(-1) + 84 * np.eye(10)
    assert differing.min() >= 5
    # A one is drawn as a column of ink.
    assert (codes[1].reshape(12, 7)[1:11, 3] == 1).all()


def test_output_is_zero_at_the_code_and_counts_the_differing_dots():
    codes = lenet.digit_codes()
    outputs = lenet.RadialBasis().apply({}, jnp.asarray(codes, jnp.float32))
    expected = -4.0 * (codes[:, None] != codes[None]).sum(-1)
    np.testing.assert_allclose(outputs, expected)


def test_weights_start_uniform_in_their_fan_in():
    net, images = models.create("lenet5", num_classes=10), jnp.zeros((1, 32, 32, 1))
    init = jax.jit(lambda key: net.init(key, images, train=False))
    params = init(jax.random.key(3, impl="rbg"))["params"]
    table = lenet.c3_connections()
    maps = np.nonzero(table)[1]
    bounds = {
        "C1": 2.4 / 25,
        "C3": 2.4 / (25 * table.sum(0)[maps]),
        "C5": 2.4 / 400,
        "F6": 2.4 / 120,
    }
    for name, bound in bounds.items():
        scaled = np.abs(params[name]["kernel"]) / bound
        assert scaled.max() <= 1 + 1e-6
        assert scaled.max() > 0.95
        assert scaled.mean() == pytest.approx(0.5, abs=0.1)


def test_subsampling_starts_by_its_fan_in_of_four():
    """Appendix A: uniform in +-2.4 / fan-in, also for the coefficient of a map."""
    init = lenet.Subsampling().init(jax.random.key(0), jnp.zeros((1, 2, 2, 500)))
    size = np.abs(init["params"]["coefficient"]) / (2.4 / 4)
    assert 0.98 < size.max() <= 1
    assert size.mean() == pytest.approx(0.5, abs=0.05)
    assert init["params"]["coefficient"].min() < 0
    assert not init["params"]["bias"].any()


def test_modern_net_is_the_same_module_with_four_fields():
    modern = models.create("lenet5_modern", num_classes=10)
    assert type(modern) is type(models.create("lenet5", num_classes=10))
    variables, images = drawn.variables(modern, 32, 32, 1), drawn.images(2, 32, 32, 1)
    assert set(variables["params"]) == {"C1", "C3", "C5", "F6", "output"}
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    x = np.asarray(images, np.float64)
    for name in ("C1", "C3"):
        x = np.maximum(correlate(x, p[name]["kernel"], p[name]["bias"]), 0)
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    x = np.maximum(correlate(x, p["C5"]["kernel"], p["C5"]["bias"]), 0)[:, 0, 0]
    x = np.maximum(x @ p["F6"]["kernel"] + p["F6"]["bias"], 0)
    expected = x @ p["output"]["kernel"] + p["output"]["bias"]
    found = jax.jit(lambda v, x: modern.apply(v, x, train=True))(variables, images)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_codes_exist_for_ten_digits_only():
    with pytest.raises(names.ConfigError, match=r"codes for the 10 digits.*100"):
        models.create("lenet5", num_classes=100)
    linear = models.create("lenet5", num_classes=100, output="linear")
    kernel = drawn.shapes(linear, 32, 32, 1)["params"]["output"]["kernel"]
    assert kernel.shape == (84, 100)


@pytest.mark.parametrize("subsampling", ["trainable", "max"])
@pytest.mark.parametrize(
    "width", [35, *(pytest.param(w, marks=pytest.mark.slow) for w in (33, 38))]
)
def test_a_line_of_any_width_is_read_up_to_its_last_whole_position(width, subsampling):
    net = models.create("lenet5", num_classes=10, line=True, subsampling=subsampling)
    variables, x = drawn.variables(net, 32, width, 1), drawn.images(2, 32, width, 1)
    apply = jax.jit(lambda v, x: net.apply(v, x, train=False))
    found = apply(variables, x)
    whole = 4 * ((width - 32) // 4) + 32
    expected = apply(variables, x[:, :, :whole])
    assert found.shape[1] == (width - 32) // 4 + 1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
