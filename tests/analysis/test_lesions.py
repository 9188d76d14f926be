"""Lesions that change nothing, lesions that do, and the sum over all paths."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.analysis import blocks, lesions
from cnn_jax.analysis.blocks import Site
from cnn_jax.training.losses import softmax_cross_entropy
from cnn_jax.training.steps import errors
from tests.analysis import nets

without = jax.jit(blocks.without, static_argnums=0)


def test_blocks_are_found_in_order():
    net, variables = nets.build()
    found = blocks.sites(net, variables, nets.IMAGE)
    assert [site.name for site in found] == [f"stage{s}_block1" for s in (1, 2, 3)]
    assert [site.same_shape for site in found] == [True, False, False]
    assert all(site.removable for site in found)
    plain = blocks.sites(*nets.build("plain"), nets.IMAGE)
    assert [site.removable for site in plain] == [True, False, False]


def test_a_net_without_blocks_is_refused():
    net = models.create("lenet5_modern", 3)
    image = (32, 32, 1)
    variables = net.lazy_init(
        jax.random.key(0), jax.ShapeDtypeStruct((1, *image), jnp.float32), train=False
    )
    with pytest.raises(ValueError, match="LeNet5 has no blocks") as error:
        blocks.sites(net, variables, image)
    assert error.type is ValueError  # a ConfigError would stop the other analyses


def test_removing_a_branch_that_is_zero_changes_no_bit():
    net, variables = nets.build()
    images = nets.batch()["image"]
    bn = variables["params"]["stage2_block1"]["bn2"]
    bn["scale"], bn["bias"] = jnp.zeros(2), jnp.zeros(2)
    whole = without(net, variables, images, jnp.array([1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(
        whole, without(net, variables, images, jnp.array([1.0, 0.0, 1.0]))
    )
    plain_call = jax.jit(lambda x: net.apply(variables, x, train=False))(images)
    np.testing.assert_allclose(whole, plain_call, rtol=1e-5)
    other = without(net, variables, images, jnp.array([1.0, 1.0, 0.0]))
    assert float(jnp.abs(other - whole).max()) > 1e-3


def test_a_removed_residual_block_is_its_shortcut():
    net, variables = nets.build()
    images = nets.batch()["image"]
    removed = without(net, variables, images, jnp.array([0.0, 0.0, 0.0]))
    zeroed = jax.tree.map(lambda leaf: leaf, variables)
    for stage in (1, 2, 3):
        block = zeroed["params"][f"stage{stage}_block1"]
        block["bn2"] = jax.tree.map(jnp.zeros_like, block["bn2"])
    expected = jax.jit(lambda x: net.apply(zeroed, x, train=False))(images)
    np.testing.assert_allclose(removed, expected, rtol=1e-5)


def test_a_removed_plain_block_lets_its_input_pass():
    net, variables = nets.build("plain")
    images = nets.batch()["image"]
    keep_shape_changers = jnp.array([0.0, 0.0, 0.0])  # 2 and 3 cannot be removed
    removed = without(net, variables, images, keep_shape_changers)
    np.testing.assert_array_equal(
        removed, without(net, variables, images, jnp.array([0.0, 1.0, 1.0]))
    )
    whole = without(net, variables, images, jnp.ones(3))
    assert float(jnp.abs(removed - whole).max()) > 1e-2
    # The same net with the block replaced by the identity.
    by_hand = jax.tree.map(lambda leaf: leaf, variables)
    params = by_hand["params"]["stage1_block1"]
    stats = by_hand["batch_stats"]["stage1_block1"]
    for layer in ("1", "2"):
        params[f"conv{layer}"]["kernel"] = (
            jnp.zeros((3, 3, 2, 2)).at[1, 1].set(jnp.eye(2))
        )
        params[f"bn{layer}"] = {"scale": jnp.ones(2), "bias": jnp.zeros(2)}
        stats[f"bn{layer}"] = {"mean": jnp.zeros(2), "var": jnp.ones(2) - 1e-5}
    expected = jax.jit(lambda x: net.apply(by_hand, x, train=False))(images)
    np.testing.assert_allclose(removed, expected, rtol=1e-4)


def test_the_error_counts_real_images_alone():
    net, variables = nets.build()
    batch = nets.batch()
    outputs = jax.jit(lambda v, x: net.apply(v, x, train=False))
    outputs = np.array(outputs(variables, batch["image"]))
    wrong = outputs.argmax(1) != np.array(batch["label"])
    batch["label"] = batch["label"].at[3].set((outputs[3].argmax() + 1) % 3)
    found = lesions.error_without(net, variables, [batch, batch], np.ones(3), errors)
    assert found == pytest.approx(wrong[:3].mean())


def test_gradients_of_all_paths_add_up_to_the_gradient():
    net, variables = nets.build()
    batch = nets.batch()

    def objective(images):
        outputs = net.apply(variables, images, train=False)
        return (softmax_cross_entropy(outputs, batch) * batch["mask"]).sum() / 3

    expected = jax.jit(jax.grad(objective))(batch["image"])
    paths = [
        lesions.input_gradient(
            net, softmax_cross_entropy, variables, batch, jnp.array(path, jnp.float32)
        )
        for path in itertools.product((0, 1), repeat=3)
    ]
    assert len({float(jnp.abs(path).sum()) for path in paths}) == 8
    np.testing.assert_allclose(sum(paths), expected, atol=1e-6)
    norm = lesions.path_gradient(
        net, variables, batch, softmax_cross_entropy, np.ones(3)
    )
    assert norm == pytest.approx(float(jnp.linalg.norm(paths[-1])), rel=1e-5)


@pytest.mark.parametrize("count", [1, 5, 27])
def test_path_lengths_are_binomial(count):
    found = lesions.path_lengths(count)
    lengths = np.arange(count + 1)
    assert found.sum() == pytest.approx(1)
    assert found @ lengths == pytest.approx(count / 2)
    assert found @ (lengths - count / 2) ** 2 == pytest.approx(count / 4)
    if count == 5:  # counts every path
        paths = itertools.product((0, 1), repeat=5)
        counted = np.bincount([sum(path) for path in paths]) / 2**5
        np.testing.assert_allclose(found, counted)


SITES = [
    Site("a", True, True, ((2,),)),
    Site("b", True, True, ((2,),)),
    Site("c", True, False, ((2,),)),
    Site("d", False, False, ((3,),)),
    Site("e", True, True, ((3,),)),
    Site("f", True, True, ((2,),)),
]


def test_blocks_are_exchanged_with_their_like():
    random = np.random.default_rng(0)
    orders = [lesions.shuffled(SITES, 3, random) for _ in range(50)]
    assert all(order[2:5] == [2, 3, 4] for order in orders)
    assert {tuple(order[place] for place in (0, 1, 5)) for order in orders} == {
        tuple(p) for p in itertools.permutations((0, 1, 5)) if _odd(p)
    }
    assert lesions.exchangeable(SITES) == [(0, 1), (0, 5), (1, 5)]
    assert lesions.shuffled(SITES[2:5], 0, random) == [0, 1, 2]
    with pytest.raises(ValueError, match="no two blocks"):
        lesions.shuffled(SITES[2:5], 1, random)


def _odd(order):
    """Whether the permutation is odd, as after three exchanges."""
    pairs = itertools.combinations(order, 2)
    return sum(one > other for one, other in pairs) % 2 == 1


def test_as_many_blocks_are_removed_as_asked_for():
    random = np.random.default_rng(0)
    for count in range(1, 6):
        keep = lesions.some_removed(SITES, count, random)
        assert keep.sum() == 6 - count
        assert keep[3] == 1
    with pytest.raises(ValueError, match="cannot remove 6 of 5"):
        lesions.some_removed(SITES, 6, random)


@pytest.mark.parametrize(
    ("stats", "exchanged"),
    [
        ({"x": {"a": 10, "b": 20}}, {"x": {"a": 20, "b": 10}}),
        ({"stem": 5}, {"stem": 5}),  # batch norm outside the blocks alone
        ({}, {}),  # group norm
    ],
)
def test_exchanged_blocks_carry_their_variables_along(stats, exchanged):
    tree = {"x": {"a": {"w": 1}, "b": {"w": 2}}, "stem": {"w": 3}}
    sites = [Site(f"x/{name}", True, True, ()) for name in "ab"]
    variables = {"params": tree, "batch_stats": stats}
    found = lesions.exchanged(variables, sites, [1, 0])
    moved = {"x": {"a": {"w": 2}, "b": {"w": 1}}, "stem": {"w": 3}}
    assert found == {"params": moved, "batch_stats": exchanged}
    assert tree == {"x": {"a": {"w": 1}, "b": {"w": 2}}, "stem": {"w": 3}}


def test_kendall_tau_counts_pairs():
    assert lesions.kendall_tau([0, 1, 2, 3]) == 1
    assert lesions.kendall_tau([3, 2, 1, 0]) == -1
    assert lesions.kendall_tau([1, 0, 2, 3]) == pytest.approx(1 - 2 / math.comb(4, 2))
