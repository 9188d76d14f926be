"""Loops over blocks compute the same as the unrolled net with the same weights."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import models
from cnn_jax.kernels import plain
from cnn_jax.models import layout, torchvision
from cnn_jax.models.layers import BatchNorm
from cnn_jax.models.summary import multiply_accumulates, summarize
from cnn_jax.training import optimizer
from tests.models import drawn
from tests.tiers import fast

IMAGES = drawn.images(4, 4, 4, 3)  # jax.random would compile at collection
TINY = {"depth": 14, "widths": (2, 3)}


def pair(remat=True, **fields):
    """The unrolled net and its twin with loops."""
    unrolled = models.create("cifar_resnet", 10, **{**TINY, **fields})
    return unrolled, unrolled.clone(scan=True, remat=remat)


def start(net, seed=0):
    image = jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)
    return net.lazy_init(jax.random.key(seed), image, train=False)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def assert_close(found, expected, tolerance=1e-3):
    """Equal but for rounding, leaf by leaf in norm."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert one.shape == other.shape
        error = np.linalg.norm(one - other)
        assert error <= tolerance * np.linalg.norm(other) + 1e-5


def learn(net, variables):
    """Logits, running statistics and gradients of a training step, unrolled."""

    @jax.jit
    def step(variables):
        def objective(params):
            logits, changed = net.apply(
                {**variables, "params": params},
                IMAGES,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.square(logits - 1).mean(), (logits, changed)

        gradients, aux = jax.grad(objective, has_aux=True)(variables["params"])
        return *aux, gradients

    return layout.unroll(jax.device_get(step(variables)), net)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        *(
            pytest.param(fields, marks=pytest.mark.slow)
            for fields in (
                {"remat": False},
                {"shortcut": "none"},
                {"shortcut": "C"},
                {"shortcut": "B", "preactivation": True},
                {"block": "bottleneck", "depth": 14},
                {"norm": partial(BatchNorm, groups=2), "zero_scale": True},
            )
        ),
    ],
    ids=str,
)
def test_a_loop_starts_and_learns_as_the_unrolled_net(fields):
    unrolled, looped = pair(**{"stage_sizes": (1, 3), "depth": 10, **fields})
    # of the host, where nothing is compiled for each shape
    variables, stacked = jax.device_get((start(unrolled), start(looped)))
    blocks = {name for name in stacked["params"] if "block" in name}
    assert blocks == {"stage1_block1", "stage2_block1", "stage2_blocks"}
    assert_same(layout.unroll(stacked, looped), variables)
    assert_same(layout.stack(variables, looped), stacked)
    assert_close(learn(looped, stacked), learn(unrolled, variables))


def test_a_bfloat16_loop_with_stochastic_depth_keeps_its_type():
    """A block whose output had the type of its rate, float32, could not be looped."""
    unrolled, looped = pair(stochastic_depth=0.9, dtype="bfloat16")
    stacked = layout.stack(start(unrolled), looped)
    outputs = jax.eval_shape(partial(looped.apply, train=False), stacked, IMAGES)
    assert outputs.dtype == jnp.float32


def test_rates_of_stochastic_depth_differ_from_block_to_block_of_a_loop():
    """Evaluation weights a branch by its survival rate; training draws it."""
    unrolled, looped = pair(stochastic_depth=0.9)
    variables = start(unrolled)
    stacked = layout.stack(variables, looped)
    expected = jax.jit(partial(unrolled.apply, train=False))(variables, IMAGES)
    found = jax.jit(partial(looped.apply, train=False))(stacked, IMAGES)
    assert_close(found, expected, 1e-5)

    @jax.jit
    def train(seed):
        keys = {"dropout": jax.random.key(seed)}
        return looped.apply(
            stacked, IMAGES, train=True, rngs=keys, mutable=["batch_stats"]
        )[0]

    draws = [train(seed) for seed in range(4)]
    np.testing.assert_array_equal(train(0), draws[0])
    assert any(not np.array_equal(draw, draws[0]) for draw in draws[1:])


class Dropping(nn.Module):
    """A user-defined block with dropout and a parameter."""

    width: int
    default_layers = 2
    stride: int = 1
    shortcut: str = "A"
    num_layers: int = 2
    preactivation: bool = False
    bottleneck_stride: str = "1x1"
    zero_scale: bool = False
    death_rate: float = 0.0
    conv: object = None
    norm: object = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train):
        gain = self.param("gain", nn.initializers.normal(), ())
        ones = jnp.ones((x.shape[0], x.shape[1] // self.stride, 8, self.width))
        kept = nn.Dropout(0.5)(ones[:, :, : x.shape[2] // self.stride], not train)
        self.sow("intermediates", "kept", kept)
        return kept * gain


def test_a_block_of_ones_own_draws_anew_in_every_turn_of_a_loop():
    _, looped = pair(block="tests.models.test_layout:Dropping")
    stacked = start(looped)
    _, seen = jax.jit(
        partial(looped.apply, train=True, mutable=["intermediates", "batch_stats"])
    )(stacked, IMAGES, rngs={"dropout": jax.random.key(0)})
    first, second = seen["intermediates"]["stage1_blocks"]["kept"][0]
    assert 0 < np.count_nonzero(first) < first.size
    assert not np.array_equal(first, second)


def test_what_blocks_put_out_is_kept_for_each_block():
    unrolled, looped = pair()

    def kept(net):
        look = partial(net.apply, train=False, capture_intermediates=True)
        return layout.unroll(jax.device_get(jax.jit(look)(start(net), IMAGES)[1]), net)

    assert_close(kept(looped), kept(unrolled))


def test_inside_another_module_each_block_starts_by_itself():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return models.create("cifar_resnet", 3, scan=True, depth=14)(x, False)

    variables = jax.jit(Outer().init)(jax.random.key(0), IMAGES)
    kernels = variables["params"]["ResNet_0"]["stage1_blocks"]["conv1"]["kernel"]
    assert kernels.shape == (1, 3, 3, 16, 16)
    assert float(kernels.std()) == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.1)


def equations(program):
    """Operations of a program, including inner programs."""
    return len(program.eqns) + sum(
        equations(getattr(inner, "jaxpr", inner))
        for equation in program.eqns
        for inner in jax.tree.leaves(list(equation.params.values()))
        if hasattr(inner, "eqns") or hasattr(inner, "jaxpr")
    )


def test_the_program_does_not_grow_with_the_depth():
    def size(depth, scan):
        unrolled, looped = pair(depth=depth)
        net = looped if scan else unrolled
        variables = jax.eval_shape(
            lambda: net.init(jax.random.key(0), IMAGES, train=False)
        )

        def loss(params, rest):
            logits, _ = net.apply(
                {**rest, "params": params}, IMAGES, train=True, mutable=["batch_stats"]
            )
            return logits.sum()

        program = jax.make_jaxpr(jax.grad(loss))(variables["params"], variables)
        return equations(program.jaxpr)

    assert size(10, True) == size(26, True)
    assert size(26, False) > 2 * size(10, False)  # checks that the count works


def test_sizes_do_not_depend_on_the_layout():
    unrolled, looped = pair(shortcut="B")
    expected = summarize(unrolled, (8, 8, 3))
    assert summarize(looped, (8, 8, 3)) == expected
    with plain.definitions():
        program = jax.make_jaxpr(partial(looped.apply, train=False))(
            start(looped), np.zeros((1, 8, 8, 3), np.float32)
        )
    assert sum(n for _, n in multiply_accumulates(program.jaxpr)) == expected.macs


@pytest.mark.parametrize(
    "rule", fast([optimizer.adamw], [optimizer.sgd, optimizer.adamw])
)
@pytest.mark.parametrize("decay", fast(["kernels"], ["all", "kernels"]))
def test_an_optimizers_state_and_updates_convert_as_its_parameters_do(rule, decay):
    unrolled, looped = pair()
    rule = rule(
        0.1,
        weight_decay=0.1,
        decay=decay,
        **({"momentum": 0.9} if rule is optimizer.sgd else {}),
    )

    @jax.jit
    def first(params):
        state = rule.init(params)
        return state, *rule.update(params, state, params)

    params = jax.device_get(start(unrolled)["params"])
    stacked = layout.stack(params, looped)
    (state, updates, after), (found_start, found, found_state) = jax.device_get(
        (first(params), first(stacked))
    )
    assert_same(layout.stack(state, looped), found_start)
    state = after
    assert_close(layout.unroll(found, looped), updates, 1e-6)
    assert_close(layout.unroll(found_state, looped), state, 1e-6)
    assert optax.tree.norm(updates) > 0


def test_arrays_of_the_host_stay_there():
    _, looped = pair()
    host = jax.device_get(start(looped))
    leaves = jax.tree.leaves(layout.unroll(host, looped))
    again = jax.tree.leaves(layout.stack(layout.unroll(host, looped), looped))
    assert all(isinstance(leaf, np.ndarray) for leaf in [*leaves, *again])


def test_variables_of_another_depth_are_refused():
    unrolled, looped = pair()
    deeper = looped.clone(depth=18)
    with pytest.raises(ValueError, match="'stage1_block4' is missing"):
        layout.stack(start(unrolled), deeper)
    with pytest.raises(ValueError, match="expected 3 blocks in a stack"):
        layout.unroll(start(looped), deeper)


def test_networks_without_loops_are_left_as_they_are():
    unrolled, _ = pair()
    lenet = models.create("lenet5", 10)
    tree = {"stage1_block2": 1, "stage1_blocks": 2}
    for net in (unrolled, lenet):
        assert layout.stack(tree, net) is tree is layout.unroll(tree, net)
    assert layout.unrolled(lenet) is lenet is layout.fastest(lenet, "cpu")


@pytest.mark.parametrize(
    ("name", "depth", "platform", "looped"),
    [
        ("cifar_resnet", 56, "cpu", False),
        ("cifar_plain", 110, "cpu", True),
        ("cifar_resnet", 110, "gpu", False),
        ("cifar_resnet", 1202, "gpu", True),
        ("resnet152", 152, "cpu", False),
    ],
)
def test_deep_nets_gain_by_loops(name, depth, platform, looped):
    net = layout.fastest(models.create(name, 10, depth=depth), platform)
    assert (net.scan, net.remat) == (looped, looped)
    assert layout.unrolled(net) == models.create(name, 10, depth=depth)


def test_the_backend_does_not_choose_what_a_net_draws():
    net = models.create("cifar_resnet", 10, depth=1202, stochastic_depth=0.5)
    assert layout.fastest(net, "cpu") is net
    assert layout.fastest(net.clone(stochastic_depth=0.0), "cpu").scan


def test_torchvision_sees_the_unrolled_net():
    unrolled = torchvision.create("resnet18", 5, widths=(2, 2, 3, 3))
    looped = unrolled.clone(scan=True)
    variables = jax.device_get(start(unrolled))
    stacked = layout.stack(variables, looped)
    state = torchvision.to_state_dict(unrolled, variables)
    assert_same(torchvision.to_state_dict(looped, stacked), state)
    assert_same(torchvision.from_state_dict(looped, state), stacked)
