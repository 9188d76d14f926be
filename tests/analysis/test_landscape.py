"""Loss landscapes against a quadratic, NumPy and a loop over points."""

import itertools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.analysis import landscape, landscape_file, landscape_shape
from cnn_jax.models import layers
from cnn_jax.names import ConfigError
from cnn_jax.training import losses, steps

AXIS = np.linspace(-1, 1, 5)


def half_square(params, offset):
    """A quadratic whose landscape is known: |params - offset|^2 / 2."""
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    return {"loss": jnp.square(flat - offset).sum() / 2}


def some_params():
    rng = np.random.default_rng(0)
    shapes = {
        "conv": {"kernel": (3, 3, 2, 4), "bias": (4,)},
        "bn": {"scale": (4,), "bias": (4,)},
        "head": {"kernel": (4, 3), "bias": (3,)},
    }
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def tiny_net(size=24):
    """A net with non-trivial running statistics, its data and its objective."""
    net = models.create("cifar_resnet", 3, depth=8, widths=(2, 3, 4))
    image = jax.random.normal(jax.random.key(0), (size, 6, 6, 1))

    @jax.jit
    def start(key):
        variables = net.init(key, image, train=False)
        return variables["params"], net.apply(
            variables, image + 1, train=True, mutable=["batch_stats"]
        )[1]["batch_stats"]

    params, batch_stats = start(jax.random.key(1))
    label = jnp.arange(size) % 3
    half = size // 2
    batches = [
        {"image": image[:half], "label": label[:half], "mask": jnp.ones(half)},
        {"image": image[half:], "label": label[half:], "mask": jnp.ones(half)},
    ]
    batches[1]["mask"] = batches[1]["mask"].at[-5:].set(0)
    objective = landscape.EvaluationLoss(
        net, losses.softmax_cross_entropy, steps.errors
    )
    return objective, params, (batch_stats, landscape.stack(batches))


@pytest.mark.parametrize("masks", [(), (0,), (0, 0)])
def test_a_landscape_of_no_example_is_refused(masks):
    batches = [{"image": np.ones((2, 3)), "mask": np.full(2, mask)} for mask in masks]
    with pytest.raises(ValueError, match="at least one example, got none"):
        landscape.stack(batches)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_landscape_of_a_quadratic_is_its_quadratic(dimensions):
    params = some_params()
    directions = landscape.random_directions(params, 3, dimensions)
    axes = [np.linspace(-1, 1, 5), np.linspace(-2, 1, 4)][:dimensions]
    found = landscape.evaluate(half_square, params, directions, axes, (0.5,))

    def flat(tree):
        leaves = [
            np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)
        ]
        return np.concatenate(leaves)

    expected = np.zeros([len(axis) for axis in axes])
    for place in itertools.product(*(range(len(axis)) for axis in axes)):
        moved = flat(params) - 0.5
        for axis, index, direction in zip(axes, place, directions, strict=True):
            moved = moved + axis[index] * flat(direction)
        expected[place] = np.square(moved).sum() / 2
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


def test_filters_of_a_direction_are_as_long_as_the_networks():
    params = some_params()
    rng = np.random.default_rng(1)
    raw = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    found = landscape.filter_normalized(raw, params)
    for layer, outputs in (("conv", 4), ("head", 3)):
        for output in range(outputs):
            d = raw[layer]["kernel"][..., output]
            theta = params[layer]["kernel"][..., output]
            np.testing.assert_allclose(
                found[layer]["kernel"][..., output],
                d / np.sqrt((d**2).sum()) * np.sqrt((theta**2).sum()),
                rtol=1e-5,
            )
    for layer, name in (("conv", "bias"), ("bn", "scale"), ("bn", "bias")):
        assert not found[layer][name].any()


def test_layers_stacked_for_a_scan_are_normalised_one_by_one():
    theta = jax.random.normal(jax.random.key(0), (5, 3, 3, 2, 4))
    d = jax.random.normal(jax.random.key(1), theta.shape)
    stacked = {"blocks": {"kernel": d, "scale": jnp.ones((5, 4))}}
    found = landscape.filter_normalized(
        stacked, {"blocks": {"kernel": theta, "scale": jnp.ones((5, 4))}}
    )["blocks"]
    for layer in range(5):
        alone = landscape.filter_normalized(
            {"kernel": d[layer]}, {"kernel": theta[layer]}
        )
        np.testing.assert_allclose(found["kernel"][layer], alone["kernel"], rtol=1e-5)
    assert not found["scale"].any()


def test_a_filter_of_zeros_stays():
    kernel = jnp.ones((3, 3, 1, 2)).at[..., 0].set(0.0)
    noise = {"kernel": jnp.ones_like(kernel).at[..., 1].set(0.0)}
    found = landscape.filter_normalized(noise, {"kernel": kernel})["kernel"]
    assert not found.any()


def test_directions_follow_the_seed_and_differ():
    params = some_params()
    first, second = landscape.random_directions(params, 7, 2)
    again, _ = landscape.random_directions(params, 7, 2)
    other, _ = landscape.random_directions(params, 8, 2)
    np.testing.assert_array_equal(first["conv"]["kernel"], again["conv"]["kernel"])
    for different in (second, other):
        assert (first["conv"]["kernel"] != different["conv"]["kernel"]).all()


def test_a_net_is_evaluated_with_its_running_statistics_and_the_real_images():
    objective, params, fixed = tiny_net()
    params = jax.device_get(params)
    directions = jax.device_get(landscape.random_directions(params, 0, 2))
    found = landscape.evaluate(objective, params, directions, [AXIS, AXIS], fixed)
    batch_stats, batches = fixed
    image, label, mask = (
        np.concatenate(batches[key]) for key in ("image", "label", "mask")
    )
    real = mask > 0
    apply = jax.jit(objective.model.apply, static_argnames="train")
    for row, column in ((0, 4), (2, 2), (3, 1)):
        moved = jax.tree.map(
            lambda p, a, b, row=row, column=column: (
                p + np.float32(AXIS[row]) * a + np.float32(AXIS[column]) * b
            ),
            params,
            *directions,
        )
        logits = apply(
            {"params": moved, "batch_stats": batch_stats}, image[real], train=False
        )
        logits = np.asarray(logits, np.float64)
        log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        log = log[np.arange(len(logits)), label[real]]
        wrong = logits.argmax(-1) != label[real]
        assert found["loss"][row, column] == pytest.approx(-float(log.mean()), rel=1e-5)
        assert found["error"][row, column] == pytest.approx(wrong.mean(), abs=1e-6)


def test_batch_norm_makes_raw_distances_meaningless_and_normalised_ones_not():
    """Why filters are normalised: the same net with kernels ten times as large."""
    objective, params, (batch_stats, batches) = tiny_net()
    flat = flax.traverse_util.flatten_dict(params)
    big = {
        path: 10 * leaf if path[-2].startswith(("conv", "stem_conv")) else leaf
        for path, leaf in flat.items()
    }
    # The inputs of BN grow with the kernels, and so do its statistics.
    stats = flax.traverse_util.flatten_dict(batch_stats)
    grown = {
        path: leaf * (10 if path[-1] == "mean" else 100) for path, leaf in stats.items()
    }
    epsilon = layers.BatchNorm().epsilon
    grown = {
        path: leaf + 99 * epsilon if path[-1] == "var" else leaf
        for path, leaf in grown.items()
    }
    nets = {
        "small": (params, batch_stats),
        "big": (
            flax.traverse_util.unflatten_dict(big),
            flax.traverse_util.unflatten_dict(grown),
        ),
    }
    curves = {
        name: landscape.explore(objective, p, [AXIS], 5, (s, batches)).values["loss"]
        for name, (p, s) in nets.items()
    }
    np.testing.assert_allclose(curves["big"], curves["small"], rtol=1e-3)
    assert np.ptp(curves["small"]) > 0.1


def test_a_stored_landscape_is_made_again_to_the_bit(tmp_path):
    objective, params, fixed = tiny_net()
    made = landscape.explore(objective, params, [AXIS, AXIS[1:]], 11, fixed)
    landscape_file.save(made, tmp_path / "landscape.npz")
    stored = landscape_file.load(tmp_path / "landscape.npz")
    assert (stored.seed, stored.centre) == (11, landscape_file.digest(params))
    again = landscape.evaluate(objective, params, stored.directions, stored.axes, fixed)
    for name in ("loss", "error"):
        assert made.values[name].shape == (5, 4)
        np.testing.assert_array_equal(stored.values[name], made.values[name])
        np.testing.assert_array_equal(again[name], made.values[name])


def test_stacked_batches_hold_each_real_example_once():
    masks = ([1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0])
    batches = [
        {
            "image": np.arange(4 * n, 4 * n + 4).reshape(4, 1, 1, 1) + 1.0,
            "label": np.arange(4),
            "mask": np.array(mask, np.float32),
        }
        for n, mask in enumerate(masks)
    ]
    found = landscape.stack(batches)
    assert found["image"].shape == (3, 3, 1, 1, 1)
    assert found["image"].ravel().tolist() == [1, 2, 3, 4, 5, 6, 9, 0, 0]
    assert found["mask"].tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    assert found["label"].ravel()[:7].tolist() == [0, 1, 2, 3, 0, 1, 0]


def test_the_digest_sees_one_bit():
    params = some_params()
    before = landscape_file.digest(params)
    params["bn"]["bias"].view(np.uint32)[0] ^= 1
    assert landscape_file.digest(params) != before


def test_what_is_no_landscape_is_refused_in_one_line(tmp_path):
    path = tmp_path / "landscape.npz"
    with pytest.raises(ConfigError, match="cannot be read as a landscape"):
        landscape_file.load(path)
    path.write_bytes(b"PK nonsense")
    with pytest.raises(ConfigError, match="cannot be read as a landscape"):
        landscape_file.load(path)
    np.savez(path, loss=np.zeros(3))
    with pytest.raises(ConfigError, match="not a landscape of format 1"):
        landscape_file.load(path)


def test_every_direction_needs_an_axis():
    params = some_params()
    directions = landscape.random_directions(params, 0, 2)
    with pytest.raises(ValueError, match="got 2 directions and 1 axes"):
        landscape.evaluate(half_square, params, directions, [AXIS], (0.0,))


def test_local_minima_of_known_surfaces():
    x, y = np.meshgrid(np.linspace(-2, 2, 21), np.linspace(-2, 2, 21))
    assert landscape_shape.local_minima(x**2 + y**2) == 1
    assert landscape_shape.local_minima((x**2 - 1) ** 2 + y**2) == 2
    assert landscape_shape.local_minima(x + y) == 0
    holes = x**2 + y**2
    holes[10, 10] = np.nan
    assert landscape_shape.local_minima(holes) == 0
