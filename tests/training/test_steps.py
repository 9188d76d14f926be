"""One training step against a NumPy float64 reference."""

from functools import partial

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.names import ConfigError
from cnn_jax.training import losses, optimizer, schedule, steps
from cnn_jax.training.parallel import Devices
from cnn_jax.training.schedule import Warmup
from cnn_jax.training.state import create_state
from tests.training import reference

WIDTHS = (3, 4, 5)
RATE, MOMENTUM, DECAY = 0.1, 0.9, 1e-2


def make_step(residual, devices, warmup=Warmup(), rates=(RATE,), boundaries=()):  # noqa: B008
    model = models.create(
        "cifar_resnet" if residual else "cifar_plain", 10, depth=8, widths=WIDTHS
    )
    rule = partial(optimizer.sgd, momentum=MOMENTUM, weight_decay=DECAY)
    step = steps.make_train_step(
        model,
        losses.softmax_cross_entropy,
        lambda resident, item: {**item, "mask": jnp.ones(item["label"].shape)},
        lambda images: images,
        lambda key, images: images,
        rule,
        schedule.piecewise(rates, boundaries),
        warmup,
    )
    state = create_state(
        model, rule(0.0), (8, 8, 2), 3, warming=warmup.until_train_error > 0
    )
    return devices.compile(step, donate_state=False), devices.replicate(state), state


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(6, 8, 8, 2)).astype(np.float32),
        "label": rng.integers(0, 10, 6).astype(np.int32),
    }


@pytest.mark.parametrize("residual", [True, False])
def test_two_steps_agree_with_numpy(residual, batch):
    devices = Devices("pmap", 1)
    step, state, first = make_step(residual, devices)
    flat = {
        key: np.asarray(value, np.float64)
        for key, value in flax.traverse_util.flatten_dict(first.params).items()
    }
    velocity = {key: np.zeros_like(value) for key, value in flat.items()}
    mean, var = np.zeros(WIDTHS[0]), np.ones(WIDTHS[0])
    for _ in range(2):
        tree = flax.traverse_util.unflatten_dict(flat)
        net = reference.Net(tree, 1, residual)
        loss, grads = net.loss_and_gradients(
            batch["image"].astype(np.float64), batch["label"], WIDTHS
        )
        assert set(grads) == set(flat)
        for key, gradient in grads.items():
            velocity[key] = MOMENTUM * velocity[key] + gradient + DECAY * flat[key]
            flat[key] = flat[key] - RATE * velocity[key]
        mean = 0.9 * mean + 0.1 * net.stats[("stem_bn",)][0]
        var = 0.9 * var + 0.1 * net.stats[("stem_bn",)][1]

        state, sums = step(state, {}, devices.split(batch))
        sums = devices.fetch(sums)
        np.testing.assert_allclose(sums["loss"] / sums["count"], loss, rtol=1e-5)
    host = devices.fetch(state)
    ours = flax.traverse_util.flatten_dict(host.params)
    for key, value in flat.items():
        np.testing.assert_allclose(ours[key], value, rtol=1e-3, atol=1e-5, err_msg=key)
    norm = np.sqrt(sum((value**2).sum() for value in flat.values()))
    assert np.sqrt(sum((v**2).sum() for v in ours.values())) == pytest.approx(
        norm, rel=1e-5
    )
    stem = host.batch_stats["stem_bn"]
    np.testing.assert_allclose(stem["mean"], mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(stem["var"], var, rtol=1e-3)
    assert host.step == 2


def test_padded_examples_count_for_nothing(batch):
    """Loss, error and gradient use only the unmasked part of a batch."""
    losses_, wrong = jnp.array([1.0, jnp.inf]), jnp.array([0.0, 1.0])

    def sums(_, __, item):
        return steps.masked_sums(losses_, wrong, item["mask"])

    devices = Devices("pmap", 1)
    item = {"mask": np.array([1.0, 0.0], np.float32)}
    found = devices.fetch(
        devices.compile(sums, donate_state=False)(
            devices.replicate({}), devices.replicate({}), devices.split(item)
        )
    )
    assert found == {"loss": 1.0, "error": 0.0, "count": 1.0}


def test_warmup_ends_with_the_training_error_and_never_returns(batch):
    """He et al. 2015, section 4.2: 0.01 until the error is below 80 %, then 0.1."""
    devices = Devices("pmap", 1)
    step, state, _ = make_step(
        True, devices, Warmup(rate=0.01, until_train_error=0.8), (0.1, 0.001), (60,)
    )
    seen = []
    for _ in range(62):
        state, sums = step(state, {}, devices.split(batch))
        sums, host = devices.fetch((sums, state))
        seen.append((float(sums["rate"]), bool(host.warming), float(host.recent_error)))
    rates = [rate for rate, _, _ in seen]
    turn = next(i for i, (_, warming, _) in enumerate(seen) if not warming)
    assert rates[: turn + 1] == pytest.approx([0.01] * (turn + 1))
    assert seen[turn][2] < 0.8 <= seen[turn - 1][2]
    assert rates[turn + 1 : 60] == pytest.approx([0.1] * (59 - turn))
    assert rates[60:] == pytest.approx([0.001] * 2)
    assert not any(warming for _, warming, _ in seen[turn:])


class Linear(nn.Module):
    """A net without batch norm, so that examples do not interact."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def wrong(outputs, batch):
    return batch["wrong"]


def make_linear_step(warmup, mix=None, errors=wrong):
    """A step of `Linear`; its items set which examples count and which are wrong."""
    devices, model, rule = (
        Devices("pmap", 1),
        Linear(),
        partial(optimizer.sgd, momentum=0.5),
    )
    step = steps.make_train_step(
        model,
        losses.softmax_cross_entropy,
        lambda resident, item: item,
        lambda images: images,
        lambda key, images: images,
        rule,
        schedule.piecewise((0.1,)),
        warmup,
        errors,
        mix,
    )
    compiled = devices.compile(step, donate_state=False)
    state = create_state(model, rule(0.0), (2, 2, 1), 0, warming=True)

    def take(state, **item):
        state, sums = compiled(state, {}, devices.split(item))
        return state, *devices.fetch((state, sums))

    return take, devices.replicate(state)


def test_the_warmup_does_not_return_when_the_error_climbs_back():
    """The running error falls below the threshold, and rises above it again."""
    take, state = make_linear_step(Warmup(rate=0.01, until_train_error=0.9))
    images = np.ones((2, 2, 2, 1), np.float32)
    seen = []
    for wrong in [0.0] * 10 + [1.0] * 60:
        state, host, sums = take(
            state,
            image=images,
            label=np.zeros(2, np.int32),
            mask=np.ones(2, np.float32),
            wrong=np.full(2, wrong, np.float32),
        )
        seen.append((float(host.recent_error), float(sums["rate"])))
    recent, rates = map(list, zip(*seen, strict=True))
    turn = next(step for step, error in enumerate(recent) if error < 0.9)
    assert turn < 10
    assert recent[-1] > 0.9, "the error must climb back for the test to tell"
    assert rates == pytest.approx([0.01] * (turn + 1) + [0.1] * (69 - turn))


def test_losses_are_one_number_for_each_example():
    """Else they would be broadcast against the mask."""
    mask = jnp.ones(4)
    for losses_, wrong in ((jnp.ones((4, 4)), mask), (mask, jnp.ones(1))):
        with pytest.raises(ConfigError, match="must be one number for each example"):
            steps.masked_sums(losses_, wrong, mask)


def test_mixed_images_train_towards_both_labels():
    """One step on two mixed pairs, and the same by hand."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(4, 2, 2, 1)), jnp.float32)
    labels, partner = np.array([0, 1, 2, 2], np.int32), jnp.array([1, 0, 3, 2])

    def mix(key, images):
        return images[partner] * 0.25 + images * 0.75, partner, 0.75

    take, state = make_linear_step(Warmup(rate=0.1), mix=mix, errors=steps.errors)
    batch = {"image": np.asarray(images), "label": labels, "mask": np.ones(4, "f")}
    before = jax.device_get(state.params)
    _, after, sums = take(state, **batch)

    def objective(params):
        outputs = Linear().apply({"params": params}, mix(None, images)[0], train=True)
        own, other = (
            losses.softmax_cross_entropy(outputs, {"label": of})
            for of in (labels, labels[partner])
        )
        wrong = (outputs.argmax(-1) != labels).sum()
        return (0.75 * own + 0.25 * other).mean(), wrong

    before = jax.tree.map(lambda leaf: leaf[0], before)
    (loss, wrong), gradient = jax.value_and_grad(objective, has_aux=True)(before)
    assert sums["loss"] / 4 == pytest.approx(float(loss), rel=1e-5)
    assert sums["error"] == wrong
    for new, old, slope in zip(
        *map(jax.tree.leaves, (after.params, before, gradient)), strict=True
    ):
        np.testing.assert_allclose(new, old - 0.1 * slope, rtol=1e-4, atol=1e-6)


def test_padded_examples_do_not_train():
    """Weights, momentum, running error and sums are those of the real examples."""
    rng = np.random.default_rng(0)
    item = {
        "image": rng.normal(size=(4, 2, 2, 1)).astype(np.float32),
        "label": np.array([0, 1, 2, 2], np.int32),
        "mask": np.array([1, 1, 0, 0], np.float32),
        "wrong": np.array([1, 0, 1, 1], np.float32),
    }
    take, state = make_linear_step(Warmup(rate=0.1))
    _, padded, padded_sums = take(state, **item)
    _, real, real_sums = take(state, **{key: leaf[:2] for key, leaf in item.items()})
    for one, other in zip(
        jax.tree.leaves((padded, padded_sums)),
        jax.tree.leaves((real, real_sums)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert real_sums["count"] == 2
    assert real.recent_error == pytest.approx(0.99)


def test_errors_are_of_the_largest_output():
    outputs = jnp.array([[0.1, 0.9], [0.8, 0.2]])
    batch = {"label": jnp.array([1, 1])}
    assert steps.errors(outputs, batch).tolist() == [0.0, 1.0]


def test_a_random_key_is_folded_with_the_step(batch):
    """Augmentation differs between steps, but not between runs."""
    devices = Devices("pmap", 1)
    draws = []

    def augment(key, images):
        jax.debug.callback(lambda k: draws.append(tuple(k)), jax.random.key_data(key))
        return images

    model = models.create("cifar_resnet", 10, depth=8, widths=(2, 2, 2))
    rule = optimizer.sgd
    step = steps.make_train_step(
        model,
        losses.softmax_cross_entropy,
        lambda resident, item: {**item, "mask": jnp.ones(item["label"].shape)},
        lambda images: images,
        augment,
        rule,
        schedule.piecewise((0.1,)),
        Warmup(),
    )
    compiled = devices.compile(step, donate_state=False)
    for _ in range(2):
        state = create_state(model, rule(0.0), (8, 8, 2), 3, warming=False)
        state = devices.replicate(state)
        for _ in range(2):
            state, _ = compiled(state, {}, devices.split(batch))
            jax.block_until_ready(state)
            jax.effects_barrier()
    assert draws[0] == draws[2]
    assert draws[1] == draws[3]
    assert draws[0] != draws[1]


def test_a_mixed_batchs_loss_is_shared_between_two_labels():
    """Zhang et al. 2018, section 2; errors count against the larger share's label."""
    partner, logits = jnp.array([1, 2, 0]), jnp.eye(3) * 2.0
    batch = {"image": None, "label": jnp.array([0, 1, 2]), "mask": jnp.ones(3)}
    loss = losses.softmax_cross_entropy
    own, other = (
        loss(logits, {"label": labels})
        for labels in (batch["label"], batch["label"][partner])
    )
    for share, wrong in ((0.7, [0, 0, 0]), (0.3, [1, 1, 1])):
        _, shared, larger = steps.mixed(
            lambda key, images, share=share: (images, partner, jnp.float32(share)),
            jax.random.key(0),
            jnp.zeros((3, 1, 1, 1)),
            loss,
            batch,
        )
        found = shared(logits, batch)
        np.testing.assert_allclose(found, share * own + (1 - share) * other, rtol=1e-6)
        assert steps.errors(logits, larger).tolist() == wrong


def test_one_compiled_program_takes_any_number_of_steps():
    traced = []

    def step(state, resident, item):
        traced.append(item)
        total = resident + item.sum()
        sums = {"loss": total, "error": 0.0, "count": 2.0, "rate": 0.1 * state.step}
        return state.replace(step=state.step + 1), sums

    model = models.create("cifar_resnet", 10, depth=8, widths=WIDTHS)
    state = create_state(model, optimizer.sgd(0.0), (8, 8, 2), 0, warming=False)
    many = jax.jit(steps.repeat(step, 4))
    items = jnp.arange(8.0).reshape(2, 4)
    for count in (4, 1, 3):
        after, sums = many(state, (jnp.float32(10), jnp.int32(count)), items)
        assert int(after.step) == count
        taken = np.arange(4) < count
        for key, wanted in {
            "loss": 10 + items.sum(0),
            "count": np.full(4, 2.0),
            "rate": np.float32(0.1) * np.arange(4, dtype=np.float32),
        }.items():
            np.testing.assert_array_equal(sums[key], np.where(taken, wanted, 0))
    assert len(traced) == 1
