"""oneDNN's convolutions against lax: values, derivatives of each order, batching."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from cnn_jax import kernels
from cnn_jax.kernels import extension, onednn, plain
from cnn_jax.kernels.convolution import conv_general_dilated
from cnn_jax.kernels.geometry import Geometry
from tests.needs import needs
from tests.tiers import fast

pytestmark = needs("oneDNN")

LAYOUT = ("NHWC", "HWIO", "NHWC")
# (batch, rows, columns, channels), features, (taps), stride, padding, dilation, groups
CASES = {
    "3x3": ((4, 8, 8, 16), 16, (3, 3), 1, 1, 1, 1),
    "stride": ((3, 9, 7, 16), 32, (3, 3), 2, 1, 1, 1),
    "projection": ((2, 8, 8, 16), 32, (1, 1), 2, 0, 1, 1),
    "LeNet-5's C1": ((2, 32, 32, 1), 6, (5, 5), 1, 0, 1, 1),
    "LeNet-5's C3": ((2, 14, 14, 6), 16, (5, 5), 1, 0, 1, 1),
    "stem": ((2, 31, 29, 3), 18, (7, 7), 4, 3, 1, 1),
    "groups": ((2, 7, 7, 16), 32, (5, 5), 1, 2, 1, 2),
    "depthwise, dilated": ((2, 9, 9, 8), 8, (3, 3), 1, 2, 2, 8),
    "many features": ((5, 20, 21, 16), 48, (3, 3), 1, 1, 1, 1),
    "many features, dilated": ((3, 12, 11, 7), 40, (3, 2), 2, 2, 2, 1),
    "one image, several blocks": ((1, 41, 40, 5), 48, (3, 3), 1, 1, 1, 1),
    "one image, one channel, one feature": ((1, 5, 3, 1), 1, (3, 2), 1, 1, 1, 1),
    "a map smaller than its kernel": ((2, 1, 1, 5), 7, (3, 3), 1, 1, 1, 1),
    # oneDNN's own code for their kernel gradients writes past its memory
    "narrow projection": ((1, 128, 128, 3), 8, (1, 1), 2, 0, 1, 1),
    "narrow projection of groups": ((2, 64, 64, 8), 8, (1, 1), 2, 0, 1, 2),
}


def drawn(case, dtype=jnp.float32):
    images, features, taps, stride, padding, dilation, groups = case
    rng = np.random.default_rng(0)
    channels = images[3] // groups
    x = jnp.asarray(rng.normal(size=images), dtype)
    kernel = rng.normal(size=(*taps, channels, features))
    kernel = jnp.asarray(kernel / np.sqrt(taps[0] * taps[1] * channels), dtype)

    def call(function):
        return lambda x, kernel: function(
            x,
            kernel,
            (stride, stride),
            ((padding, padding), (padding, padding)),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=LAYOUT,
            feature_group_count=groups,
        )

    return x, kernel, call(conv_general_dilated), call(lax.conv_general_dilated)


def close(found, expected, tolerance=2e-6):
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        assert ours.dtype == theirs.dtype
        ours, theirs = np.asarray(ours, "float64"), np.asarray(theirs, "float64")
        scale = max(np.abs(theirs).max(initial=0.0), 1e-6)
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=tolerance)


def everything(function, x, kernel):
    """Value, both derivatives, and their derivatives in both modes."""

    def loss(x, kernel):
        return jnp.tanh(function(x, kernel)).sum()

    def slope(x, kernel):
        return jax.grad(loss, (0, 1))(x, kernel)

    def size_of_slope(x, kernel):
        return sum(jnp.square(one).sum() for one in slope(x, kernel))

    return (
        jax.jvp(function, (x, kernel), (x + 1, kernel - 1)),
        slope(x, kernel),
        jax.jvp(slope, (x, kernel), (x, kernel))[1],
        jax.grad(size_of_slope, (0, 1))(x, kernel),
    )


@pytest.mark.parametrize("name", CASES)
def test_equals_lax_in_value_and_slopes(name):
    x, kernel, ours, theirs = drawn(CASES[name])
    assert "cnn_jax_maps" in str(jax.make_jaxpr(ours)(x, kernel))

    @partial(jax.jit, static_argnums=0)
    def value_and_slopes(function):
        maps, pull = jax.vjp(function, x, kernel)
        return maps, pull(jnp.tanh(maps))

    close(value_and_slopes(ours), value_and_slopes(theirs), 5e-6)


# They consist of the three functions that the test above compares for every case.
DERIVED = (
    *("groups", "stride", "LeNet-5's C3", "depthwise, dilated"),
    *("many features, dilated", "narrow projection of groups"),
)


@pytest.mark.parametrize("name", fast(["groups"], DERIVED))
def test_equals_lax_in_derivatives_of_both_modes_and_orders(name):
    x, kernel, ours, theirs = drawn(CASES[name])
    found = jax.jit(everything, static_argnums=0)(ours, x, kernel)
    close(found, jax.jit(everything, static_argnums=0)(theirs, x, kernel), 5e-6)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_equals_lax_for_any_shape(data):
    draw = data.draw
    one = st.integers(1, 9)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    taps = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    case = (
        (draw(one), draw(one), draw(one), groups * draw(one)),
        groups * draw(st.integers(1, 40)),
        taps,
        draw(st.integers(1, 3)),
        draw(st.integers(0, 4)),
        draw(st.integers(1, 2)),
        groups,
    )
    x, kernel, ours, theirs = drawn(case)
    found = jax.jit(everything, static_argnums=0)(ours, x, kernel)
    close(found, jax.jit(everything, static_argnums=0)(theirs, x, kernel), 5e-6)


@pytest.mark.parametrize("name", ["groups", "one image, several blocks"])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (2, 1)])
def test_vmap(axes, name):
    x, kernel, ours, theirs = drawn(CASES[name])

    def slopes(function, x, kernel):
        return jax.grad(lambda *o: jnp.tanh(function(*o)).sum(), (0, 1))(x, kernel)

    several = [
        one if axis is None else jnp.stack([one, 2 * one, -one], axis)
        for one, axis in zip((x, kernel), axes, strict=True)
    ]
    found = jax.jit(jax.vmap(lambda *o: slopes(ours, *o), axes))(*several)
    expected = jax.jit(lambda *o: slopes(theirs, *o))
    for number, scale in enumerate((1, 2, -1)):
        one = [
            o if axis is None else scale * o
            for o, axis in zip((x, kernel), axes, strict=True)
        ]
        close([slope[number] for slope in found], list(expected(*one)), 5e-6)


def test_vmap_of_vmap():
    x, kernel, ours, theirs = drawn(CASES["stride"])
    kernels = jnp.stack([kernel, 2 * kernel])
    images = jnp.stack([x, x + 1, x - 1])

    def grid(function):
        over_images = jax.vmap(function, (0, None))
        return jax.jit(jax.vmap(over_images, (None, 0)))(images, kernels)

    close(grid(ours), grid(theirs))


@needs("bfloat16")
def test_half_precision_where_the_processor_has_it():
    x, kernel, ours, theirs = drawn(CASES["3x3"], jnp.bfloat16)
    assert "cnn_jax_maps" in str(jax.make_jaxpr(ours)(x, kernel))

    @partial(jax.jit, static_argnums=0)
    def value_and_slopes(function):
        maps, pull = jax.vjp(function, x, kernel)
        return maps, pull(maps)

    close(value_and_slopes(ours), value_and_slopes(theirs), 0.02)


def test_what_onednn_refuses_is_left_to_xla():
    x, kernel, ours, theirs = drawn(CASES["3x3"], jnp.float16)
    assert "cnn_jax_maps" not in str(jax.make_jaxpr(ours)(x, kernel))
    close(ours(x, kernel), theirs(x, kernel))
    x, kernel, ours, theirs = drawn(CASES["3x3"])
    assert ours(x[:0], kernel).shape == (0, 8, 8, 16)
    assert jax.grad(lambda k: ours(x[:0], k).sum())(kernel).shape == kernel.shape
    # a crop
    found, expected = (
        f(x, kernel, (1, 1), ((-1, 0), (0, -2)), dimension_numbers=LAYOUT)
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    close(found, expected)


def test_an_impossible_convolution_is_an_error_with_its_shape():
    x, kernel, _, _ = drawn(CASES["3x3"])
    shape = (1, 4, 9, 9, 16)
    call = jax.ffi.ffi_call("cnn_jax_maps", jax.ShapeDtypeStruct(shape, "f4"))
    numbers = {"strides": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    numbers["shape"] = shape
    numbers = {name: np.array(value, np.int64) for name, value in numbers.items()}
    numbers["groups"] = np.int64(1)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"oneDNN.*\(4, 8, 8, 16\)"):
        jax.block_until_ready(call(x[None], kernel[None], **numbers))


@pytest.mark.parametrize("check", [False, True])
def test_shard_map(check):
    x, kernel, ours, theirs = drawn(CASES["3x3"])
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(AxisType.Auto,))

    def slope(function, x, kernel):
        return jax.grad(lambda k: jnp.tanh(function(x, k)).sum())(kernel)

    def part(x, kernel):
        found = slope(ours, x, kernel)
        return found if check else lax.psum(found, "devices")

    split = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(PartitionSpec("devices"), PartitionSpec()),
        out_specs=PartitionSpec(),
        check_vma=check,
    )
    close(jax.jit(split)(x, kernel), slope(theirs, x, kernel))


def test_many_devices_at_once_have_memory_of_their_own():
    """Eight devices run the same program concurrently, many times."""
    x, kernel, ours, _ = drawn(CASES["LeNet-5's C3"])
    images = jnp.stack([x * scale for scale in range(1, 9)])

    @jax.pmap
    def run(x):
        def step(kernel, _):
            slope = jax.grad(lambda k: jnp.tanh(ours(x, k)).sum())(kernel)
            return kernel - 0.01 * slope, None

        return lax.scan(step, kernel, length=20)[0]

    first = run(images)
    assert all((run(images) == first).all() for _ in range(10))


def test_scan_and_remat():
    x, kernel, ours, theirs = drawn(CASES["3x3"])

    def loss(function, kernels):
        layer = jax.checkpoint(lambda x, k: (jnp.tanh(function(x, k)), None))
        return lax.scan(layer, x, kernels)[0].sum()

    kernels = jnp.stack([kernel] * 3)
    found = jax.jit(jax.grad(loss, 1), static_argnums=0)(ours, kernels)
    close(found, jax.grad(loss, 1)(theirs, kernels), 5e-6)


def test_the_same_bits_every_time():
    x, kernel, ours, _ = drawn(((64, 16, 16, 16), 32, (3, 3), 1, 1, 1, 1))
    slopes = jax.jit(jax.grad(lambda x, k: jnp.tanh(ours(x, k)).sum(), (0, 1)))
    first = slopes(x, kernel)
    for _ in range(10):
        for one, again in zip(first, slopes(x, kernel), strict=True):
            np.testing.assert_array_equal(one, again)


def test_export_is_refused_with_advice_that_holds(monkeypatch):
    x, kernel, ours, _ = drawn(CASES["3x3"])
    with pytest.raises(NotImplementedError, match=r"plain\.definitions"):
        jax.export.export(jax.jit(ours))(x, kernel)
    with plain.definitions():
        kept = jax.export.export(jax.jit(lambda *o: ours(*o)))(x, kernel)
    close(kept.call(x, kernel), ours(x, kernel))
    monkeypatch.setenv(extension.SWITCH, "false")
    assert kernels.library() == "xla"
    jax.export.export(jax.jit(lambda *o: ours(*o)))(x, kernel)


def test_off_on_other_backends(monkeypatch):
    x, kernel, ours, _ = drawn(CASES["3x3"])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert kernels.library() == "xla"
    assert "cnn_jax_maps" not in str(jax.make_jaxpr(ours)(x, kernel))


def test_vmap_over_nothing():
    x, kernel, ours, theirs = drawn(CASES["3x3"])
    for axes in ((0, None), (None, 0)):
        none = [
            a if b is None else jnp.zeros((0, *a.shape))
            for a, b in zip((x, kernel), axes, strict=True)
        ]
        found = jax.vmap(ours, axes)(*none)
        assert found.shape == jax.vmap(theirs, axes)(*none).shape


def test_calls_without_jit():
    x, kernel, ours, theirs = drawn(CASES["3x3"])
    with jax.disable_jit():
        close(ours(x, kernel), theirs(x, kernel))


def test_a_convolution_too_large_for_onednn_leaves_the_next_ones_right():
    """After it, oneDNN generates no more code on the thread that planned it."""
    images, kernel = (
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in ((4, 32, 32, 3), (5, 5, 3, 192_000_000))
    )
    ours = drawn(((4, 32, 32, 3), 1, (5, 5), 1, 2, 1, 1))[2]
    assert "cnn_jax_maps" not in str(jax.make_jaxpr(ours)(images, kernel))
    # Sizes that no other test has: oneDNN keeps the code of those it has seen.
    x, kernel, ours, theirs = drawn(((6, 2, 2, 5), 5, (3, 3), 1, 1, 1, 1))
    assert "cnn_jax_maps" in str(jax.make_jaxpr(ours)(x, kernel))
    close(ours(x, kernel), theirs(x, kernel))


def test_lax_refuses_what_is_no_convolution():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((1, 1, 2, 2))
    with pytest.raises(ValueError, match="feature_group_count"):
        conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=0
        )
    geometry = Geometry((4, 4), (1, 1))
    for other in (kernel.astype(jnp.bfloat16)[None], jnp.stack([kernel, kernel])):
        with pytest.raises(TypeError, match="differ in type or stack"):
            onednn.bind(onednn.maps_p, x[None], other, geometry=geometry)
