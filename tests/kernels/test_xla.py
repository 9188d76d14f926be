"""Rewritten XLA convolutions equal lax's, and are what compiles on a CPU."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnn_jax import models
from cnn_jax.kernels import plain
from cnn_jax.kernels.convolution import conv_general_dilated
from cnn_jax.kernels.extension import SWITCH
from cnn_jax.kernels.geometry import Geometry
from cnn_jax.kernels.xla import form

LAYOUT = ("NHWC", "HWIO", "NHWC")

# Height and width, channels, features, taps, stride, padding, groups, form.
CASES = {
    # the CIFAR nets, at 32x32 and at 8x8, of both widths
    "stem": (16, 3, 16, 3, 1, 1, 1, "direct"),
    "grey stem": (8, 1, 8, 3, 1, 1, 1, "direct"),
    "narrow": (8, 16, 16, 3, 1, 1, 1, "direct"),
    "half width": (8, 8, 8, 3, 1, 1, 1, "direct"),
    "to stage 2": (8, 16, 32, 3, 2, 1, 1, "direct"),
    "to stage 2, half width": (8, 8, 16, 3, 2, 1, 1, "direct"),
    "wide": (8, 32, 32, 3, 1, 1, 1, "direct"),
    "4x4 map": (4, 16, 16, 3, 1, 1, 1, "direct"),
    "to 2x2": (4, 16, 32, 3, 2, 1, 1, "direct"),
    "2x2 map": (2, 8, 8, 3, 1, 1, 1, "dense"),
    "1x1 map": (1, 8, 8, 3, 1, 1, 1, "dense"),
    "odd map": (7, 8, 24, 3, 2, 1, 1, "direct"),
    "projection": (8, 16, 32, 1, 2, 0, 1, "pointwise"),
    # the ImageNet nets, smaller
    "7x7 stem": (15, 3, 18, 7, 2, 3, 1, "direct"),
    "11x11 stem": (19, 3, 18, 11, 4, 2, 1, "direct"),
    "5x5 in two groups": (6, 16, 20, 5, 1, 2, 2, "direct"),
    "3x3 in two groups, small": (3, 16, 20, 3, 1, 1, 2, "dense"),
    "1x1, padded": (4, 8, 8, 1, 1, 1, 1, "direct"),
    # LeNet-5
    "C1": (32, 1, 6, 5, 1, 0, 1, "direct"),
    "C3": (14, 6, 16, 5, 1, 0, 1, "direct"),
    "C5": (5, 16, 24, 5, 1, 0, 1, "dense"),
    "on a canvas": (7, 16, 24, 5, 1, 0, 1, "direct"),
}


def drawn(case, batch=3, dtype=jnp.float32):
    size, channels, features, taps, stride, padding, groups, _ = case
    # NumPy's numbers: jax's take a second to compile for each shape.
    random, share = np.random.default_rng(0), channels // groups
    x = jnp.asarray(random.normal(size=(batch, size, size, channels)), dtype)
    kernel = random.normal(size=(taps, taps, share, features))
    kernel = jnp.asarray(kernel / (taps * np.sqrt(share)), dtype)

    def call(function):
        return lambda x, kernel: function(
            x,
            kernel,
            (stride, stride),
            ((padding, padding), (padding, padding)),
            dimension_numbers=LAYOUT,
            feature_group_count=groups,
        )

    return x, kernel, call


def close(found, expected, tolerance=1e-5):
    found, expected = np.asarray(found), np.asarray(expected)
    scale = max(float(np.abs(expected).max()), 1e-6)
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


@pytest.fixture(autouse=True)
def without_onednn(monkeypatch):
    monkeypatch.setenv(SWITCH, "false")


# One of each form, one with groups and one in tiles.
FAST = ("to stage 2", "2x2 map", "projection", "5x5 in two groups", "C3")
FORMS = [
    name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
    for name in CASES
]

THREE = [
    "projection",
    pytest.param("narrow", marks=pytest.mark.slow),
    pytest.param("2x2 map", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", FORMS)
def test_equals_lax_in_value_and_derivatives(name):
    x, kernel, call = drawn(CASES[name])
    expected, pull = jax.vjp(call(lax.conv_general_dilated), x, kernel)
    found, pull_ours = jax.vjp(jax.jit(call(conv_general_dilated)), x, kernel)
    assert found.shape == expected.shape
    close(found, expected)
    cotangent = np.random.default_rng(3).normal(size=expected.shape)
    cotangent = jnp.asarray(cotangent, jnp.float32)
    for ours, theirs in zip(pull_ours(cotangent), pull(cotangent), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize(
    ("name", "tile", "kernel"),
    [("C1", 4, (5, 8, 1, 24)), ("C3", 2, (5, 6, 6, 32)), ("wide", 1, (3, 3, 32, 32))],
)
def test_few_channels_are_convolved_in_tiles(name, tile, kernel):
    x, weights, call = drawn(CASES[name])
    compiled = jax.make_jaxpr(call(conv_general_dilated))(x, weights)
    text = str(compiled)
    assert f"window_strides=(1, {tile})" in text
    assert f"f32[{','.join(map(str, kernel))}]" in text


@pytest.mark.parametrize("name", CASES)
def test_form_is_chosen_by_static_shape(name):
    size, _, _, taps, stride, padding, _, expected = CASES[name]
    pads = (padding, padding)
    slide = Geometry((size, size), (taps, taps), (stride, stride), (pads, pads))
    assert form(slide) == expected


@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", THREE)
def test_half_precision_keeps_its_type(name, dtype):
    x, kernel, call = drawn(CASES[name], dtype=dtype)
    expected = call(lax.conv_general_dilated)(x, kernel)
    found, pull = jax.vjp(jax.jit(call(conv_general_dilated)), x, kernel)
    assert found.dtype == dtype
    assert [g.dtype for g in pull(found)] == [dtype, dtype]
    close(found.astype("float32"), expected.astype("float32"), 0.02)


@pytest.mark.parametrize("name", THREE)
def test_second_derivatives_and_vmap(name):
    x, kernel, call = drawn(CASES[name])

    def loss(function):
        return lambda x, kernel: jnp.tanh(call(function)(x, kernel)).sum()

    @partial(jax.jit, static_argnums=0)
    def hessian_product(function, x, kernel):
        slope = jax.grad(loss(function), argnums=1)
        return jax.jvp(lambda k: slope(x, k), (kernel,), (kernel,))[1]

    @partial(jax.jit, static_argnums=0)
    def norm_of_gradient(function, x, kernel):
        slope = jax.grad(loss(function), argnums=1)
        return jax.grad(lambda k: (slope(x, k) ** 2).sum())(kernel)

    for derivative in (hessian_product, norm_of_gradient):
        close(
            derivative(conv_general_dilated, x, kernel),
            derivative(lax.conv_general_dilated, x, kernel),
        )

    kernels = jnp.stack([kernel, 2 * kernel])
    slopes = jax.jit(jax.vmap(jax.grad(loss(conv_general_dilated), 1), (None, 0)))
    expected = jax.jit(jax.grad(loss(lax.conv_general_dilated), 1))
    for one, slope in zip(kernels, slopes(x, kernels), strict=True):
        close(slope, expected(x, one))


def test_forward_mode_within_plain_definitions():
    x, kernel, call = drawn(CASES["narrow"])
    expected = jax.jvp(call(lax.conv_general_dilated), (x, kernel), (x, kernel))[1]
    with plain.definitions():
        found = jax.jvp(call(conv_general_dilated), (x, kernel), (x, kernel))[1]
    close(found, expected)


def test_off_on_other_backends(monkeypatch):
    x, kernel, call = drawn(CASES["2x2 map"])
    assert "dot_general" in str(jax.make_jaxpr(call(conv_general_dilated))(x, kernel))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    program = str(jax.make_jaxpr(call(conv_general_dilated))(x, kernel))
    assert "dot_general" not in program
    assert "custom_vjp" not in program


def convolutions(compiled):
    """Shape pairs and windows of the convolutions of a compiled program."""
    return re.findall(
        r"= \S+ convolution\([^\n]*window=\{([^}]*)\}[^\n]*dim_labels=(\S+?),?\s",
        compiled,
    )


def test_every_convolution_of_a_step_is_canonical():
    """No reversed window, no dilated input, no transposed layout: see the module."""
    net = models.create("cifar_resnet", 10, depth=8, widths=(8, 16, 32))
    x = jnp.zeros((32, 8, 8, 1))
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))

    def loss(params, x):
        rest = {"batch_stats": variables["batch_stats"]}
        rest = jax.tree.map(jnp.zeros_like, rest)
        outputs = net.apply(
            {"params": params, **rest}, x, train=True, mutable=["batch_stats"]
        )
        return outputs[0].sum()

    program = jax.jit(jax.grad(loss)).lower(variables["params"], x).compile().as_text()
    found = convolutions(program)
    assert len(found) > 10
    for window, labels in found:
        assert labels == "b01f_01io->b01f"
        assert "lhs_dilate" not in window
        assert "rhs_reversal" not in window
