"""A run is the same whether its network is unrolled or looped."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.models import layout
from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint, optimizer
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny


def program(scan, blocks=3, **changes):
    """A net whose last stage loops over all of its blocks but the first."""
    model = {
        "depth": 6 + 2 * blocks,
        "stage_sizes": (1, 1, blocks),
        "widths": (2, 2, 2),
    }
    model |= {"scan": scan, "remat": scan}
    return Program(tiny.config(model=model, **changes))


@pytest.fixture(scope="module")
def looped():
    return program(True)


@pytest.fixture(scope="module")
def unrolled():
    return program(False)


def final_state(program, place):
    return checkpoint.restore(place.checkpoints, program.initial_state(0))[0]


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_array_equal(one, other)


def assert_close(found, expected):
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def stop_at(step):
    def report(now, row):
        if now >= step:
            raise RuntimeError("stopped")

    return report


def test_a_state_is_unrolled_on_the_host_and_stacked_on_the_devices(looped, unrolled):
    host = looped.initial_state(3)
    assert_same(host, unrolled.initial_state(3))
    placed = looped.place(host)
    assert "stage3_blocks" in placed.params
    assert "stage3_block2" not in placed.params
    assert "stage3_block2" in unrolled.place(host).params
    assert_same(looped.fetch(placed), host)
    assert looped.num_parameters == unrolled.num_parameters
    # States on the host belong to the unrolled network.
    image = jnp.zeros((1, *looped.image_shape))
    variables = {"params": host.params, "batch_stats": host.batch_stats}
    apply = functools.partial(looped.model.apply, train=False)
    assert jax.eval_shape(apply, variables, image).shape == (1, 3)


@pytest.mark.slow
def test_a_run_goes_on_in_either_layout(looped, unrolled, tmp_path):
    whole = RunDirectory(tmp_path / "whole")
    fit(looped, 0, whole)
    expected = final_state(looped, whole)
    again = RunDirectory(tmp_path / "again")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(looped, 0, again, stop_at(5))
    fit(looped, 0, again)
    assert_same(final_state(looped, again), expected)
    assert again.log() == whole.log()

    changed = RunDirectory(tmp_path / "changed")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(looped, 0, changed, stop_at(5))
    with pytest.raises(RuntimeError, match="stopped"):
        fit(unrolled, 0, changed, stop_at(9))
    fit(looped, 0, changed)
    found = final_state(unrolled, changed)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert_close(found, expected)


@pytest.mark.slow
def test_loops_share_batch_statistics_across_devices():
    """One step on two devices, statistics over both."""

    def after_a_step(scan, mode):
        placing = {"mode": mode, "devices": 2, "bn_group_size": 16}
        here = program(scan, parallel=placing)
        item, _ = next(here.source.train_batches(0, 16, 0))
        state, sums = here.train_step(
            here.place(here.initial_state(0)), here.resident, here.devices.split(item)
        )
        return here.fetch(state), here.devices.fetch(sums)

    expected = after_a_step(False, "pmap")
    for mode in ("pmap", "shard_map"):
        assert_close(after_a_step(True, mode), expected)


def test_the_train_step_does_not_grow_with_the_depth():
    def size(blocks):
        here = program(True, blocks)
        item, _ = next(here.source.train_batches(0, 16, 0))
        step = jax.make_jaxpr(lambda *inputs: here.train_step(*inputs))
        traced = step(
            here.place(here.initial_state(0)), here.resident, here.devices.split(item)
        )
        return str(traced).count("\n")

    assert size(3) == size(6)


def elementwise(learning_rate, momentum: float = 0.5):
    """A user-defined optimizer."""
    return optimizer.sgd(learning_rate, momentum)


@pytest.mark.parametrize(
    ("changes", "looped"),
    [
        ({}, True),
        ({"model": {"depth": 20}}, False),
        ({"model": {"scan": False}}, False),
        ({"model": {"remat": False}}, False),
        ({"model": {"depth": 20, "scan": True}}, True),
        pytest.param(
            {"model": {"stochastic_depth": 0.5, "shortcut": "A"}},
            False,
            marks=pytest.mark.slow,
        ),
        ({"model": {"block": "cnn_jax.models.blocks:BasicBlock"}}, False),
    ],
)
def test_deep_nets_train_in_loops_unless_the_config_says_otherwise(changes, looped):
    config = tiny.config(model={"depth": 110})
    config["model"] |= changes.get("model", {})
    here = Program(config)
    assert here.compiled_model.scan is looped
    assert not here.model.scan


def test_a_users_optimizer_sees_each_layer(monkeypatch):
    monkeypatch.setitem(layout.LOOP_FROM, "cpu", 1)
    own = {"name": "tests.training.test_layout:elementwise"}
    for section, looped in ((tiny.CONFIG["optimizer"], True), (own, False)):
        here = Program({**tiny.config(model={"depth": 14}), "optimizer": section})
        assert here.compiled_model.scan is looped
        assert not here.model.scan


def test_the_layout_is_no_part_of_what_a_run_computes(tmp_path):
    place = RunDirectory(tmp_path / "run")
    first = tiny.config(model={"scan": True})
    with place.open_for_training(first):
        pass
    place.check_config(tiny.config(model={"scan": False, "remat": True}))
    place.check_config(tiny.config())
    with pytest.raises(ConfigError, match=r"model\.depth: was 8, is 14"):
        place.check_config(tiny.config(model={"depth": 14}))


@pytest.mark.parametrize(
    "draws", [{"stochastic_depth": 0.5}, {"block": "cnn_jax.models.blocks:BasicBlock"}]
)
def test_the_layout_is_part_of_a_run_whose_blocks_may_draw(tmp_path, draws):
    place = RunDirectory(tmp_path / "run")
    with place.open_for_training(tiny.config(model={"scan": True, **draws})):
        pass
    place.check_config(tiny.config(model={"scan": True, "remat": True, **draws}))
    with pytest.raises(ConfigError, match=r"model\.scan: was True, is False"):
        place.check_config(tiny.config(model={"scan": False, **draws}))
