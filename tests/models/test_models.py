"""Properties of every network in the table: precision, inputs, names."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from cnn_jax import models, names
from cnn_jax.kernels import plain
from cnn_jax.models.layers import BatchNorm, Conv, check_images, relu
from cnn_jax.models.pooling import max_pool
from tests.models import drawn
from tests.tiers import fast

# Narrow versions; the same code.
SMALL = {
    "alexnet": {"widths": (4, 4, 4, 4, 4), "hidden": (8, 8)},
    "vgg": {"widths": (2, 3, 4, 5, 6), "hidden": (8, 8), "image_size": 32},
    "nin": {"width": 0.05},
    "cifar": {"depth": 8, "widths": (4, 6, 8)},
    "resnet": {"widths": (4, 6, 8, 10), "stage_sizes": (1, 1, 1, 1)},
    "lenet5": {},
}
SMALL["plain"] = SMALL["resnet"]
# One net per implementation: others differ only in sizes.
NETS = [
    *("lenet5", "lenet5_modern", "alexnet", "alexnet_torchvision", "vgg16_c"),
    *("nin_cifar", "nin_imagenet", "cifar_resnet", "cifar_plain", "resnet18"),
    *("resnet50", "plain50"),
]
SIZES = {"vgg": 32, "resnet": 32, "plain": 32}


def small(name, **fields):
    """A narrow version of a registered net, its image size and channels."""
    family = next(key for key in SMALL if name.startswith(key))
    fields = {**SMALL[family], **fields}
    if family in ("resnet", "plain"):
        layers = 2 if name.endswith(("18", "34")) else 3
        fields["depth"] = 2 + 4 * layers
    net = models.NETS[name]
    module = models.create(
        name, num_classes=5 if "lenet5" not in name else 10, **fields
    )
    return module, SIZES.get(family, net.image_size), net.channels


def test_small_versions_reach_every_module():
    used = {type(small(name)[0]) for name in NETS}
    assert used == {type(small(name)[0]) for name in models.NETS}


@pytest.mark.parametrize(
    "name", fast(["lenet5", "alexnet", "vgg16_c", "nin_cifar", "resnet50"], NETS)
)
@pytest.mark.parametrize("train", fast([True], [False, True]))
def test_one_field_makes_the_computation_bfloat16(name, train):
    module, size, channels = small(name, dtype="bfloat16")
    images = jax.ShapeDtypeStruct((8, size, size, channels), jnp.float32)

    def run(images):
        variables = module.init(jax.random.key(0), images, train=False)
        rngs = {"dropout": jax.random.key(1)}
        outputs, changed = module.apply(
            variables, images, train=train, rngs=rngs, mutable=["batch_stats"]
        )
        return variables, outputs, changed

    variables, outputs, changed = jax.eval_shape(run, images)
    # Parameters, statistics and outputs stay float32 ...
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((variables, outputs, changed))}
    assert dtypes == {jnp.dtype("float32")}
    # ... and every convolution, and every dense layer but the last, is bfloat16.
    program = jax.make_jaxpr(
        lambda v, x: module.apply(
            v,
            x,
            train=train,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
    )(variables, images)
    products = list(product_dtypes(program.jaxpr))
    assert [kind for name, kind in products if name == "conv_general_dilated"]
    floats = [item for item in products if item[1] == "float32"]
    assert floats == ([] if no_final_dense(name) else [("dot_general", "float32")])


def no_final_dense(name):
    """The RBF output and the global average of Network in Network."""
    return name == "lenet5" or name.startswith("nin")


def product_dtypes(program):
    for equation in program.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield equation.primitive.name, str(equation.invars[0].aval.dtype)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from product_dtypes(inner)


@pytest.mark.parametrize(
    "name",
    fast(["lenet5"], ["lenet5", "alexnet", "vgg16", "nin_cifar", "resnet18"]),
)
def test_bfloat16_logits_are_near_those_of_float32(name):
    size = {"alexnet": 67}.get(name)
    fields = {"image_size": size, "initializer": "he"} if size else {}
    module, full, channels = small(name, **fields)
    shape = (*(size or full,) * 2, channels)
    variables, images = drawn.variables(module, *shape), drawn.images(2, *shape)
    exact, rough = (
        jax.jit(lambda m=m: m.apply(variables, images, train=False))()
        for m in (module, small(name, dtype="bfloat16", **fields)[0])
    )
    assert exact.dtype == rough.dtype == jnp.float32
    error = abs(exact - rough).max() / abs(exact).max()
    assert 0 < error < 0.05


@pytest.mark.parametrize("name", NETS)
def test_images_that_do_not_fit(name):
    module, size, channels = small(name)
    variables = drawn.shapes(module, size, size, channels)
    other = jax.ShapeDtypeStruct((1, size, size, channels + 1), jnp.float32)
    message = f"initialised for images with {channels} channels, got {channels + 1}"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda v, x: module.apply(v, x, train=False), variables, other)
    if name.startswith(("lenet", "alexnet", "vgg")):
        message = f"expects images of {size} x {size} pixels, got {size + 1} x {size}"
        with pytest.raises(ValueError, match=message):
            drawn.shapes(module, size + 1, size, channels)
    if name == "nin_imagenet":
        message = r"at least 11 x 11 pixels, got 10 x 20"
        with pytest.raises(ValueError, match=message):
            drawn.shapes(module, 10, 20, channels)


def test_an_array_that_is_no_batch_of_images():
    message = r"expects images \(n, height, width, channels\), got .* \(32, 32, 3\)$"
    with pytest.raises(ValueError, match=message):
        check_images(small("resnet18")[0], jnp.zeros((32, 32, 3)), first="stem_conv")


@pytest.mark.parametrize("name", NETS)
def test_fields_of_a_wrong_type_are_one_line(name):
    with pytest.raises(names.ConfigError, match="dtype must be one of 'float32', 'b"):
        models.create(name, num_classes=10, dtype="float16")
    with pytest.raises(names.ConfigError, match="num_classes must be positive, got 0"):
        models.create(name, num_classes=0)
    with pytest.raises(names.ConfigError, match=r"unknown field .* 'dtyp' \(did you"):
        models.create(name, num_classes=10, dtyp="float32")


def test_unknown_names_list_the_choices():
    with pytest.raises(names.ConfigError, match=r"'vgg17' \(did you mean 'vgg1[169]'"):
        models.create("vgg17", num_classes=10)


@pytest.mark.parametrize("name", fast(["lenet5", "nin_cifar", "resnet50"], NETS))
def test_linens_own_table_describes_every_network(name):
    module, size, channels = small(name)
    table = nn.tabulate(module, jax.random.key(0), console_kwargs={"width": 200})
    text = table(jnp.zeros((1, size, size, channels)), train=False)
    # linen counts running statistics among them
    variables = drawn.shapes(module, size, size, channels)
    total = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert f"Total Parameters: {total:,}" in text


class Layers(nn.Module):
    """Every layer with a custom derivative."""

    @nn.compact
    def __call__(self, x, train):
        x = BatchNorm()(Conv(5, (3, 3), padding=1)(x), train)
        return max_pool(relu(x), 2, 2)


def test_forward_mode_is_the_transpose_of_reverse_mode(monkeypatch):
    """Only forward mode uses plain definitions; reverse mode keeps the fast ones."""
    variables = drawn.variables(Layers(), 8, 8, 3)
    x, tangent = (drawn.images(2, 8, 8, 3, seed=seed) for seed in (0, 1))
    weights = drawn.images(2, 4, 4, 5, seed=2)
    asked, found = plain.asked, []

    def record(*inputs):
        if inputs:  # ReLU's derivative serves both modes
            found.append(asked(*inputs))
        return asked(*inputs)

    monkeypatch.setattr(plain, "asked", record)

    def maps(x):
        return Layers().apply(variables, x, train=True, mutable=["batch_stats"])[0]

    def weighted(x):
        return jnp.vdot(weights, maps(x))

    pulled = jax.jit(jax.grad(weighted))(x)
    assert set(found) == {False}
    found.clear()
    pushed = jax.jit(lambda x, t: jax.jvp(maps, (x,), (t,))[1])(x, tangent)
    assert set(found) == {True}
    found.clear()
    expected = float(jnp.vdot(pulled, tangent))
    assert float(jnp.vdot(weights, pushed)) == pytest.approx(expected, rel=1e-4)
    # forward over reverse, as for Hessians, keeps them as well
    jax.eval_shape(lambda x, t: jax.jvp(jax.grad(weighted), (x,), (t,)), x, tangent)
    assert set(found) == {False}
