"""Inserted layers: identity where promised, and further training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.analysis import insertion
from cnn_jax.models.layers import BatchNorm, GroupNorm
from cnn_jax.names import ConfigError
from cnn_jax.training.losses import softmax_cross_entropy
from cnn_jax.training.optimizer import sgd
from cnn_jax.training.steps import errors
from tests.analysis import nets

SITE = "stage2_block1"
KEY = jax.random.key(0)


def insert(net, variables, how, count=2, site=SITE):
    return insertion.insert(
        net, variables, site, count, how, [nets.batch(6)], jax.random.key(1)
    )


@pytest.mark.parametrize("family", ["plain", "residual"])
def test_a_residual_insertion_changes_no_bit_of_a_logit(family):
    net, variables = nets.build(family)
    longer, more = insert(net, variables, "residual")
    assert set(more["params"]) == {"base", "inserted1", "inserted2"}
    assert float(jnp.abs(more["params"]["inserted1"]["conv1"]["kernel"]).max()) > 0
    found = insertion.changed_logits(net, variables, longer, more, [nets.batch(6)])
    assert found == (0, 0.0)


def test_plain_layers_are_the_identity_to_rounding_or_not_at_all():
    net, variables = nets.build("plain")
    longer, more = insert(net, variables, "plain_identity")
    _, largest = insertion.changed_logits(net, variables, longer, more, [nets.batch(6)])
    assert largest < 1e-5
    longer, more = insert(net, variables, "plain_he")
    changed, largest = insertion.changed_logits(
        net, variables, longer, more, [nets.batch(6)]
    )
    assert changed == 15  # three logits of five real images
    assert largest > 1e-2


def test_the_maps_at_a_site_are_float32_in_a_bfloat16_net():
    """Otherwise the parameters made from them would be bfloat16."""
    net, variables = nets.build(dtype="bfloat16")
    maps = insertion.site_outputs(net, variables, [nets.batch(6)], SITE)
    assert maps.dtype == jnp.float32


@pytest.mark.parametrize("count", [2, 50])
def test_a_plain_block_of_identity_puts_out_what_it_is_given(count):
    """To rounding: batch norm keeps the unbiased variance, of 8 numbers as of 200."""
    rng = np.random.default_rng(0)
    # The last channel is always zero.
    maps = rng.uniform(0, 3, (count, 2, 2, 3)) * [1.0, 0.01, 0.0]
    maps = jnp.array(maps, jnp.float32)
    for epsilon in (1e-5, 1e-2):
        norm = functools.partial(BatchNorm, epsilon=epsilon)
        block = insertion.inserted_block(3, False, norm)
        own = insertion.identity(maps, epsilon)
        found = block.apply(own, maps, train=False)
        np.testing.assert_allclose(found, maps, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["plain_identity", "plain_he", "residual"])
def test_inserted_layers_have_the_statistics_of_what_they_see(how):
    net, variables = nets.build("plain")
    maps = insertion.site_outputs(net, variables, [nets.batch(6)], SITE)
    assert maps.shape == (5, 2, 2, 2)
    assert float(maps.std((0, 1, 2)).min()) > 1e-2
    _, more = insert(net, variables, how)
    for block in ("inserted1", "inserted2"):
        if how == "plain_he" and block == "inserted2":
            continue  # its input is the first one's output
        kernel = more["params"][block]["conv1"]["kernel"]
        seen = jax.lax.conv_general_dilated(
            maps, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        stats = more["batch_stats"][block]["bn1"]
        for name, value in (
            ("mean", seen.mean((0, 1, 2))),
            ("var", seen.var((0, 1, 2), ddof=1)),
        ):
            np.testing.assert_allclose(stats[name], value, rtol=1e-4, atol=1e-6)


def test_nothing_inserted_is_the_network_itself():
    net, variables = nets.build()
    longer, more = insert(net, variables, "none")
    assert set(more["params"]) == {"base"}
    found = insertion.changed_logits(net, variables, longer, more, [nets.batch(6)])
    assert found == (0, 0.0)


def test_training_goes_on_as_by_hand():
    net, variables = nets.build()
    batch = nets.batch()
    optimizer = functools.partial(sgd, momentum=0.9, weight_decay=1e-2)
    longer, more = insert(net, variables, "none")
    *_, trained = insertion.train(
        longer, more, [batch, batch], softmax_cross_entropy, optimizer, 0.1, KEY
    )

    def objective(params, stats):
        outputs, changed = net.apply(
            {"params": params, "batch_stats": stats},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
        )
        losses = softmax_cross_entropy(outputs, batch) * batch["mask"]
        return losses.sum() / 3, changed["batch_stats"]

    gradient = jax.jit(jax.grad(objective, has_aux=True))
    params, stats = jax.device_get((variables["params"], variables["batch_stats"]))
    momentum = jax.tree.map(np.zeros_like, params)
    for _ in range(2):
        change, stats = jax.device_get(gradient(params, stats))
        momentum = jax.tree.map(
            lambda m, g, p: 0.9 * m + g + 1e-2 * p, momentum, change, params
        )
        params = jax.tree.map(lambda p, m: p - 0.1 * m, params, momentum)
    for one, other in (
        (trained["params"]["base"], params),
        (trained["batch_stats"]["base"], stats),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            one,
            other,
        )


def test_every_step_drops_other_branches():
    net, before = nets.build(stochastic_depth=0.5)
    optimizer = functools.partial(sgd, momentum=0.0, weight_decay=0.0)
    states = insertion.train(
        net, before, [nets.batch()] * 8, softmax_cross_entropy, optimizer, 0.1, KEY
    )
    trained = set()
    for after in states:
        old, new = before["params"], after["params"]
        branches = [name for name in new if "block" in name]
        biases = [
            (new[name]["bn2"]["bias"], old[name]["bn2"]["bias"]) for name in branches
        ]
        trained.add(tuple(bool((one != other).any()) for one, other in biases))
        before = after
    assert len(trained) > 1


def test_error_and_loss_are_means_over_real_images():
    net, variables = nets.build()
    batch = nets.batch(6)
    apply = jax.jit(functools.partial(net.apply, train=False))
    outputs = np.array(apply(variables, batch["image"]))
    labels = np.array(batch["label"])
    expected = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    found = insertion.measure(net, variables, [batch], softmax_cross_entropy, errors)
    assert found["loss"] == pytest.approx(float(expected[:5].mean()), rel=1e-5)
    assert found["error"] == pytest.approx((outputs.argmax(1) != labels)[:5].mean())
    with pytest.raises(ValueError, match="the loss needs at least one example"):
        insertion.measure(net, variables, [], softmax_cross_entropy, errors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"how": "plane"}, "unknown way to insert layers 'plane'"),
        ({"site": "stage4_block1"}, "unknown place to insert layers 'stage4_block1'"),
        ({"site": "stage1_block1/conv1"}, "outputs negative numbers"),
    ],
)
def test_an_insertion_that_cannot_be_is_refused(changes, message):
    net, variables = nets.build()
    with pytest.raises(ValueError, match=message) as error:
        insert(net, variables, **{"how": "residual", **changes})
    # In a report, a ConfigError would stop the other analyses.
    assert (error.type is ConfigError) == ("how" in changes)


def test_layers_are_inserted_only_into_networks_with_batch_norm():
    net, variables = nets.build(norm=functools.partial(GroupNorm, groups=2))
    with pytest.raises(
        ValueError, match="only into a network with batch norm"
    ) as error:
        insert(net, variables, "residual")
    # In a report, a ConfigError would stop the other analyses.
    assert not isinstance(error.value, ConfigError)
