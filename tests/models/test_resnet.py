"""Plain and residual nets: shortcuts, twins, depth and fields.

One file, beyond 350 lines, as the module is one class of many fields.
"""

import dataclasses
from functools import partial

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.models import resnet
from cnn_jax.models.blocks import BasicBlock, BottleneckBlock, option_a
from cnn_jax.models.layers import BatchNorm, GroupNorm
from cnn_jax.names import ConfigError
from tests.models import drawn
from tests.tiers import fast

TINY = {"widths": (2, 3, 4)}


def shapes(name, size=8, **fields):
    net = models.create(name, 10, **fields)
    image = jnp.zeros((1, size, size, 3))
    tree = jax.eval_shape(lambda: net.init(jax.random.key(0), image, train=False))
    return {
        key: leaf.shape
        for key, leaf in flax.traverse_util.flatten_dict(tree["params"]).items()
    }


def initial(net, image):
    """Initial variables, from a generator that compiles fast."""
    key = jax.random.key(0, impl="rbg")
    return jax.jit(partial(net.init, train=False))(key, image)


def weight_layers(tree):
    """Layers with a kernel; projections are not counted (He et al. 2015)."""
    return sum(k[-1] == "kernel" and "shortcut" not in k[-2] for k in tree)


def test_blocks_of_the_stages_are_those_of_table_1():
    """He et al. (2015)."""
    assert resnet.IMAGENET_STAGES == {
        **{18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)},
        **{101: (3, 4, 23, 3), 152: (3, 8, 36, 3)},
    }


@pytest.mark.parametrize("depth", fast([8, 20, 56], [8, 20, 56, 110]))
def test_weight_layers_equal_the_depth_and_twins_share_their_tree(depth):
    plain = shapes("cifar_plain", depth=depth)
    assert weight_layers(plain) == depth
    assert plain == shapes("cifar_resnet", depth=depth)


@pytest.mark.parametrize(
    ("depth", "fields"),
    [
        (11, {"block": "bottleneck"}),
        pytest.param(
            164,
            {"block": "bottleneck", "preactivation": True, "shortcut": "B"},
            marks=pytest.mark.slow,
        ),
        (11, {"layers_per_block": 3}),
        (14, {"layers_per_block": 4}),
        pytest.param(1202, {}, marks=pytest.mark.slow),
    ],
)
def test_weight_layers_of_other_blocks(depth, fields):
    assert weight_layers(shapes("cifar_resnet", depth=depth, **fields)) == depth


# `test_summary` counts the layers and parameters of the deeper ones and their twins.
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_weight_layers_of_the_imagenet_family(depth):
    residual = shapes(f"resnet{depth}", size=32, shortcut="A")
    assert weight_layers(residual) == depth
    assert residual == shapes(f"plain{depth}", size=32)


def test_twins_start_from_the_same_weights_and_differ_by_the_addition():
    image = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    outputs, trees = [], []
    for name in ("cifar_plain", "cifar_resnet"):
        net = models.create(name, 10, depth=8, **TINY)
        variables = initial(net, image)
        trees.append(variables["params"])
        outputs.append(jax.jit(partial(net.apply, train=False))(variables, image))
    for plain, residual in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_array_equal(plain, residual)
    assert not np.allclose(outputs[0], outputs[1])


def test_option_a_subsamples_and_appends_zeros():
    x = jnp.arange(2 * 4 * 4 * 2, dtype=jnp.float32).reshape(2, 4, 4, 2)
    y = option_a(x, 5, 2)
    assert y.shape == (2, 2, 2, 5)
    np.testing.assert_array_equal(y[..., :2], x[:, ::2, ::2])
    assert not y[..., 2:].any()


class Gated(BasicBlock):
    """A block with additional fields, one of them without a default."""

    hidden: int = dataclasses.field(kw_only=True)
    act: str = "sigmoid"

    def branch(self, x, train):
        hidden = nn.Dense(self.hidden, name="squeeze")(x.mean((1, 2)))
        gate = getattr(nn, self.act)(nn.Dense(self.channels, name="excite")(hidden))
        return gate[:, None, None] * super().branch(x, train)


def test_a_block_has_the_fields_of_its_section():
    section = {"name": f"{__name__}:Gated", "hidden": 3}
    tree = shapes("cifar_resnet", depth=8, block=section, **TINY)
    assert tree[("stage2_block1", "squeeze", "kernel")] == (2, 3)
    assert tree[("stage2_block1", "excite", "kernel")] == (3, 3)
    assert tree == shapes("cifar_plain", depth=8, block=section, **TINY)
    net = models.create("cifar_resnet", 10, depth=8, block=section)
    assert hash(net) == hash(models.create("cifar_resnet", 10, depth=8, block=section))


@pytest.mark.parametrize("preactivation", [False, True])
def test_a_norm_by_config_stands_in_stem_blocks_and_shortcuts_alike(preactivation):
    """And twins share their tree with it; only batch norm keeps running averages."""
    fields = {"depth": 8, "widths": (2, 4, 4), "preactivation": preactivation}
    norm = {"name": "group", "groups": 2, "epsilon": 1e-3}
    seen = []

    def record(next_method, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and hasattr(module, "epsilon"):
            seen.append((type(module), module.epsilon))
        return next_method(*args, **kwargs)

    net = models.create("cifar_resnet", 10, shortcut="B", norm=norm, **fields)
    with nn.intercept_methods(record):
        tree = drawn.shapes(net, 8, 8, 3)
    assert set(seen) == {(GroupNorm, 1e-3)}
    batch = models.create("cifar_resnet", 10, shortcut="B", **fields)
    expected = drawn.shapes(batch, 8, 8, 3)
    assert len(seen) == len(jax.tree.leaves(expected["batch_stats"])) // 2
    assert tree == {"params": expected["params"]}
    assert shapes("cifar_plain", norm="group", **{**fields, "widths": (32,) * 3}) == (
        shapes("cifar_resnet", norm="group", **{**fields, "widths": (32,) * 3})
    )


def zero_branch(block, x, **fields):
    """The output of a block whose kernels are all zero."""
    module = block(dtype="float32", **fields)
    variables = initial(module, x)
    flat = flax.traverse_util.flatten_dict(variables["params"])
    flat = {k: jnp.zeros_like(v) if k[-1] == "kernel" else v for k, v in flat.items()}
    variables = {**variables, "params": flax.traverse_util.unflatten_dict(flat)}
    return jax.jit(partial(module.apply, train=False))(variables, x)


@pytest.mark.parametrize("preactivation", [False, True])
def test_a_zero_branch_is_the_identity(preactivation):
    """v1 on activated inputs, v2 on any: a[l+2] = a[l] is easy to represent."""
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    x = x if preactivation else jnp.abs(x)
    y = zero_branch(BasicBlock, x, width=3, preactivation=preactivation)
    np.testing.assert_array_equal(y, x)
    assert not zero_branch(BasicBlock, x, width=3, shortcut="none").any()


def test_option_a_carries_the_input_through_a_stride():
    x = jnp.abs(jax.random.normal(jax.random.key(0), (2, 4, 4, 3)))
    y = zero_branch(BasicBlock, x, width=5, stride=2)
    np.testing.assert_array_equal(y, option_a(x, 5, 2))


@pytest.mark.parametrize(
    ("shortcut", "projections"), [("none", 0), ("A", 0), ("B", 2), ("C", 3)]
)
def test_where_projections_stand(shortcut, projections):
    """B where shapes differ (stages 2 and 3), C in every block."""
    tree = shapes("cifar_resnet", depth=8, shortcut=shortcut, **TINY)
    kernels = {key: s for key, s in tree.items() if "shortcut_conv" in key}
    assert len(kernels) == projections
    assert all(shape[:2] == (1, 1) for shape in kernels.values())


@pytest.mark.parametrize(("place", "strided"), [("1x1", "conv1"), ("3x3", "conv2")])
def test_which_layer_of_a_bottleneck_has_the_stride(place, strided):
    block = BottleneckBlock(width=2, stride=2, bottleneck_stride=place, num_layers=3)
    x = jnp.zeros((1, 8, 8, 3))
    _, state = block.init_with_output(
        jax.random.key(0), x, train=False, capture_intermediates=True, mutable=True
    )
    sizes = {
        key[0]: value[0].shape[1]
        for key, value in flax.traverse_util.flatten_dict(
            state["intermediates"]
        ).items()
        if key[0].startswith("conv")
    }
    before = {"conv1": 8, "conv2": sizes["conv1"]}
    assert sizes[strided] * 2 == before[strided]
    assert sizes["conv3"] == 4


def test_strided_convolutions_pad_evenly_as_torch_does():
    """(1, 1) around a 3x3 at stride 2, where SAME would pad (0, 1)."""
    x = jnp.zeros((1, 4, 4, 1)).at[0, 0, 0, 0].set(1.0)
    block = BasicBlock(width=1, stride=2, shortcut="none", num_layers=2)
    variables = block.init(jax.random.key(0), x, train=False)
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    first = nn.Conv(1, (3, 3), strides=2, padding=1, use_bias=False)
    expected = first.apply({"params": {"kernel": kernel}}, x)
    params = {**variables["params"], "conv1": {"kernel": kernel}}
    _, state = block.apply(
        {**variables, "params": params}, x, train=False, capture_intermediates=True
    )
    found = state["intermediates"]["conv1"]["__call__"][0]
    np.testing.assert_array_equal(found, expected)
    assert found[0, 0, 0, 0] == 4.0  # the kernel's centre lies on pixel (0, 0)


def test_zero_scale_starts_each_branch_at_nothing():
    image = jnp.zeros((1, 8, 8, 3))
    net = models.create("cifar_resnet", 10, depth=8, zero_scale=True, **TINY)
    params = initial(net, image)["params"]
    assert not params["stage1_block1"]["bn2"]["scale"].any()
    assert (params["stage1_block1"]["bn1"]["scale"] == 1).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_statistics_and_logits_are_float32(dtype):
    net = models.create("cifar_resnet", 10, depth=8, dtype=dtype, **TINY)

    def run(image):
        variables = net.init(jax.random.key(0), image, train=False)
        return variables, *net.apply(
            variables,
            image,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )

    image = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    variables, logits, state = jax.eval_shape(run, image)
    assert logits.dtype == jnp.float32
    leaves = jax.tree.leaves((variables, state["batch_stats"]))
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    inner = state["intermediates"]["stage1_block1"]["__call__"][0]
    assert inner.dtype == jnp.dtype(dtype)


def test_he_initialisation_has_variance_two_over_fan_in():
    net = models.create("cifar_resnet", 10, depth=8, widths=(64, 64, 64))
    image = jnp.zeros((1, 8, 8, 3))
    params = initial(net, image)["params"]
    kernel = params["stage1_block1"]["conv2"]["kernel"]
    assert float(kernel.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert abs(float(kernel.mean())) < 1e-3


def test_batch_norm_running_statistics():
    """Momentum 0.9 on the old, unbiased variance, as torch's momentum 0.1."""
    x = jax.random.normal(jax.random.key(0), (6, 2, 2, 3)) * 2 + 1
    bn = BatchNorm()
    variables = bn.init(jax.random.key(0), x, train=True)
    y, state = bn.apply(variables, x, train=True, mutable=["batch_stats"])
    flat = np.asarray(x, np.float64).reshape(-1, 3)
    mean, var = flat.mean(0), flat.var(0, ddof=1)
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-4)
    expected = (flat - mean) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(y.reshape(-1, 3), expected, rtol=1e-3, atol=1e-5)
    running = {**variables, "batch_stats": state["batch_stats"]}
    z = bn.apply(running, x, train=False)
    expected = (flat - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5)
    np.testing.assert_allclose(z.reshape(-1, 3), expected, rtol=1e-3, atol=1e-5)


def test_batch_norm_groups_are_normalised_apart():
    x = jnp.concatenate([jnp.zeros((2, 1, 1, 1)), jnp.full((2, 1, 1, 1), 9.0)])
    x = x + jnp.array([0.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1, 1)
    bn = BatchNorm(groups=2)
    variables = bn.init(jax.random.key(0), x, train=False)
    y, _ = bn.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.ravel(), [-1, 1, -1, 1], atol=1e-4)
    with pytest.raises(ValueError, match="batch size 3 is not divisible by 2"):
        bn.apply(variables, x[:3], train=True, mutable=["batch_stats"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 21}, r"depth 21 is not 6n\+2 .* nearest: 20, 26"),
        ({"depth": 2}, r"depth 2 is not 6n\+2"),
        ({"depth": 32, "block": "bottleneck"}, r"not 9n\+2 .* nearest: 29, 38"),
        ({"shortcut": "D"}, "shortcut must be one of 'none', 'A', 'B', 'C'"),
        ({"block": "basik"}, "unknown block 'basik' .*did you mean 'basic'"),
        ({"layers_per_block": 1}, "at least 2 layers"),
        ({"widths": (4, 0, 4)}, "widths must be positive"),
        ({"widths": (4, 2, 4)}, r"widths \(4, 2, 4\) decrease"),
        ({"stage_sizes": (1, 1)}, "differ in length"),
        ({"stage_sizes": (1, 1, 2), "depth": 8}, "have 10 weight layers"),
        ({"depht": 8}, "did you mean 'depth'"),
        ({"depth": True}, "depth must be int"),
        ({"dtype": "float8"}, "dtype must be one of"),
        ({"block": {"hidden": 3}}, "block needs a 'name'"),
        ({"block": {"name": f"{__name__}:Gated"}}, "needs the field 'hidden'"),
        ({"block": {"name": "basic", "width": 3}}, "unknown field of block 'basic' 'w"),
        ({"norm": "grup"}, "unknown norm 'grup' .did you mean 'group'"),
        ({"norm": {"name": "group", "group": 2}}, "did you mean 'groups'"),
        ({"norm": {"name": "batch", "groups": 2}}, "choices: epsilon, momentum"),
        ({"stochastic_depth": 1.0}, r"stochastic_depth must be in \[0, 1\)"),
        ({"stochastic_depth": 0.5, "shortcut": "none"}, "dropped plain block"),
        ({"zero_scale": True, "shortcut": "none"}, "zero_scale needs a shortcut"),
        ({"zero_scale": True, "preactivation": True}, "no effect with preactivation"),
    ],
)
def test_a_net_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        models.create("cifar_resnet", 10, **fields)


class EndsWithNorm(BasicBlock):
    """A block whose branch ends with BN, with pre-activation too."""

    def branch(self, x, train):
        return self.normalize(super().branch(x, train), train, "bn_end", last=True)


def test_zero_scale_starts_a_preactivation_branch_that_ends_with_bn_at_nothing():
    fields = {"block": f"{__name__}:EndsWithNorm", "preactivation": True, **TINY}
    for zero_scale in (False, True):
        net = models.create(
            "cifar_resnet", 10, depth=8, zero_scale=zero_scale, **fields
        )
        params = initial(net, jnp.zeros((1, 8, 8, 3)))["params"]
        scale = params["stage2_block1"]["bn_end"]["scale"]
        np.testing.assert_array_equal(scale, 0.0 if zero_scale else 1.0)


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ConfigError, match="channels of stem_bn are not divisible by 3"):
        shapes("cifar_resnet", depth=8, norm={"name": "group", "groups": 3}, **TINY)


def test_an_imagenet_depth_off_the_table_names_the_choices():
    with pytest.raises(ConfigError, match="18, 34, 50, 101, 152"):
        models.create("resnet18", 10, depth=20)


@pytest.mark.parametrize("layout", ["cifar", "imagenet"])
def test_preactivation_activates_the_stem_once_before_both_paths(layout):
    """He et al. 2016, appendix: the first unit adds to an activated input."""
    fields = {"layout": layout, "depth": {"cifar": 8, "imagenet": 18}[layout]}
    net = resnet.ResNet(num_classes=3, preactivation=True, **fields)
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = net.init(jax.random.key(1), x, train=False)
    inputs = {}

    def record(call, arguments, keywords, context):
        if context.method_name == "__call__" and isinstance(context.module, BasicBlock):
            inputs[context.module.name] = arguments[0]
        return call(*arguments, **keywords)

    with nn.intercept_methods(record):
        net.apply(variables, x, train=False)
    assert "bn_pre" not in variables["params"]["stage1_block1"]
    assert "bn_pre" in variables["params"]["stage2_block1"]
    assert inputs["stage1_block1"].min() == 0 < inputs["stage1_block1"].max()
    assert inputs["stage2_block1"].min() < 0


def test_the_classifier_starts_with_variance_one_over_its_inputs():
    net = models.create("cifar_resnet", 1000, depth=8, widths=(2, 2, 64))
    params = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)["params"]
    assert np.var(params["head"]["kernel"]) == pytest.approx(1 / 64, rel=0.03)
    assert not np.any(params["head"]["bias"])
