"""Agreement of 1, 2 and 8 devices, pmap and shard_map, and BN groups."""

import types
from functools import partial

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.names import ConfigError
from cnn_jax.training import hosts, losses, optimizer, schedule, steps
from cnn_jax.training.parallel import Devices
from cnn_jax.training.schedule import Warmup
from cnn_jax.training.state import create_state

BATCH = 16


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(BATCH, 8, 8, 1)).astype(np.float32),
        "label": rng.integers(0, 10, BATCH).astype(np.int32),
    }


def one_step(mode, count, group_size, batch):
    """Parameters, BN statistics and metrics after a step from the same start."""
    devices = Devices(mode, count)
    model = models.create(
        "cifar_resnet",
        10,
        **{"depth": 4, "widths": (3,), "stage_sizes": (1,)},  # compiles fast
        norm=devices.norm(BATCH, group_size),
    )
    rule = partial(optimizer.sgd, momentum=0.9, weight_decay=1e-2)
    step = steps.make_train_step(
        model,
        losses.softmax_cross_entropy,
        lambda resident, item: {**item, "mask": jnp.ones(item["label"].shape)},
        lambda images: images,
        lambda key, images: images,
        rule,
        schedule.piecewise((0.1,)),
        Warmup(),
    )
    state = create_state(model, rule(0.0), (8, 8, 1), 0, warming=False)
    compiled = devices.compile(step, donate_state=True)
    state, sums = compiled(devices.replicate(state), {}, devices.split(batch))
    state, sums = devices.fetch((state, sums))
    trees = {"params": state.params, "batch_stats": state.batch_stats, "sums": sums}
    return flax.traverse_util.flatten_dict(trees)


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(
            found[key], value, rtol=2e-4, atol=1e-5, err_msg=str(key)
        )


@pytest.fixture(scope="module")
def whole(batch):
    """One device, statistics of the full batch."""
    return one_step("pmap", 1, 0, batch)


@pytest.fixture(scope="module")
def grouped(batch):
    """One device, statistics of emulated groups of two images."""
    return one_step("pmap", 1, 2, batch)


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_synchronised_bn_equals_one_device_on_the_full_batch(mode, count, batch, whole):
    assert_same(one_step(mode, count, BATCH, batch), whole)


@pytest.mark.slow
def test_shard_map_on_one_device_equals_pmap(batch, whole):
    assert_same(one_step("shard_map", 1, 0, batch), whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", ["pmap", pytest.param("shard_map", marks=pytest.mark.slow)]
)
def test_bn_per_device_equals_emulated_groups(mode, batch, grouped):
    assert_same(one_step(mode, 8, 0, batch), grouped)


@pytest.mark.parametrize(
    "mode", [pytest.param("pmap", marks=pytest.mark.slow), "shard_map"]
)
def test_groups_across_some_devices_equal_emulated_groups(mode, batch, grouped):
    """Eight devices of two images; four of them share statistics of eight."""
    across = one_step(mode, 8, 8, batch)
    assert_same(across, one_step("pmap", 1, 8, batch))
    kernel = ("params", "stage1_block1", "conv1", "kernel")
    assert not np.allclose(across[kernel], grouped[kernel], rtol=1e-4)


def test_groups_differ_from_the_full_batch(whole, grouped):
    kernel = ("params", "stage1_block1", "conv1", "kernel")
    assert not np.allclose(whole[kernel], grouped[kernel], rtol=1e-4)


@pytest.mark.parametrize(
    ("batch_size", "group", "devices"), [(16, 3, 1), (16, 6, 4), (16, 32, 2)]
)
def test_groups_that_do_not_fit_are_refused(batch_size, group, devices):
    with pytest.raises(ConfigError, match=f"bn_group_size {group}"):
        Devices("pmap", devices).norm(batch_size, group)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size 12 .* 8 device"):
        Devices("pmap", 8).check_batch(12, "batch_size")


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ConfigError, match=r"devices 9: this machine has 8 cpu"):
        Devices("pmap", 9)


def test_unknown_mode_names_the_choices():
    with pytest.raises(ConfigError, match="pmap, shard_map"):
        Devices("pjit", 1)


def test_a_host_gives_the_whole_state_and_its_rows_of_a_batch(monkeypatch):
    devices = Devices("shard_map", 8)
    devices.hosts = 2
    monkeypatch.setattr(
        jax,
        "make_array_from_process_local_data",
        lambda sharding, own, shape: jnp.zeros(shape),
    )
    rows, number = np.zeros((4, 3)), np.zeros(())
    assert devices.split(rows).shape == (8, 3)
    assert devices.replicate(rows).shape == (4, 3)
    assert devices.replicate(number).shape == ()


@pytest.mark.parametrize(
    ("kinds", "count", "message"),
    [
        (["a", "a", "b", "b"], 0, r"same devices; they have 2 x a, 2 x b$"),
        (["a", "a"], 0, r"same devices; they have 2 x a$"),
        (["a", "a", "a"], 0, r"same devices; they have 2 x a, 1 x a$"),
        (["a", "a", "a", "a"], 3, "devices 3 is not divisible by 2 hosts"),
    ],
)
def test_hosts_share_devices_of_one_kind(monkeypatch, kinds, count, message):
    there = [
        types.SimpleNamespace(process_index=place // 2, device_kind=kind)
        for place, kind in enumerate(kinds)
    ]
    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(jax, "devices", lambda: there)
    with pytest.raises(ConfigError, match=message):
        Devices("pmap", count)
