"""A run ends the same however often it is stopped.

One file, beyond 350 lines, because the tests share one uninterrupted run.
"""

import dataclasses
import datetime
import importlib.metadata
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from cnn_jax.data import sources
from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint, loop
from cnn_jax.training.feed import feed
from cnn_jax.training.interrupt import Interrupted
from cnn_jax.training.loop import Diverged, fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny
from tests.tiers import fast
from tests.training.uninterrupted import Uninterrupted

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_log_row_has_the_means_since_the_last_row():
    window = loop.Window()
    window.add({"loss": 3.0, "error": 1.0, "count": 4.0, "rate": 0.1})
    resumed = loop.Window(window.notes())
    for each in (window, resumed):
        each.add({"loss": 5.0, "error": 2.0, "count": 4.0, "rate": 0.2})
        found = each.close()
        assert found == {
            "running_train_loss": 1.0,
            "running_train_error": 3 / 8,
            "learning_rate": 0.2,
        }
    window.add({"loss": 1.0, "error": 1.0, "count": 2.0, "rate": 0.2})
    assert window.close()["running_train_loss"] == 0.5


def test_a_run_learns_and_logs_what_it_says(reference):
    place, result, state = reference.place, reference.result, reference.state
    assert result["status"] == "finished"
    assert result["step"] == 12 == int(state.step)
    rows = place.rows()
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert ["test_error" in row for row in rows] == [False, True, False, True]
    assert rows[0]["learning_rate"] == pytest.approx(0.1)
    assert rows[-1]["learning_rate"] == pytest.approx(0.01)
    assert rows[-1]["running_train_loss"] < rows[0]["running_train_loss"]
    # 40 training and 10 test examples: errors are whole examples
    assert (result["clean_train_error"] * 40) % 1 == pytest.approx(0)
    assert (result["test_error"] * 10) % 1 == pytest.approx(0)


def test_a_finished_run_is_not_run_again(program, reference):
    place, result = reference.place, reference.result
    before = (place.path / "metrics.jsonl").stat().st_mtime_ns
    assert fit(program, 0, place) == result
    assert (place.path / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("stop_at", fast([1, 6], [1, 5, 6, 11]))
def test_an_exception_at_any_step_loses_nothing(program, reference, tmp_path, stop_at):
    """Killed between checkpoints: the log is truncated and rewritten."""
    place = RunDirectory(tmp_path / "run")

    def fail(step, row):
        if step == stop_at:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fit(program, 0, place, fail)
    assert fit(program, 0, place) == place.result()
    reference.assert_equals(place)


def test_an_average_of_the_weights_is_kept_evaluated_and_resumed(tmp_path):
    """With mixed images and clipped gradients; the average follows its formula."""
    program = Program(tiny.config(ema_decay=0.7, mix={"name": "cutmix"}, clip_norm=0.5))
    whole = Uninterrupted.train(program, tmp_path / "whole")

    state = program.place(program.initial_state(0))
    average = program.fetch(state).average
    for dispatch in feed(program.source, program.devices, program.config, 0, b""):
        state, _ = program.train(state, dispatch)
        host, step = program.fetch(state), dispatch.last - 1
        kept = min(0.7, (1 + step) / (10 + step))
        weights = {"params": host.params, "batch_stats": host.batch_stats}
        average = jax.tree.map(
            lambda old, new, kept=kept: kept * old + (1 - kept) * new, average, weights
        )
    for found, expected in zip(
        jax.tree.leaves(whole.state.average), jax.tree.leaves(average), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    swapped = state.replace(**state.average)
    for key, value in program.evaluate(swapped, "test").items():
        assert whole.result[f"ema_test_{key}"] == value
    assert whole.result["ema_test_loss"] != whole.result["test_loss"]

    def fail(step, row):
        if step == 5:
            raise RuntimeError("stopped")

    place = RunDirectory(tmp_path / "stopped")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(program, 0, place, fail)
    fit(program, 0, place)
    whole.assert_equals(place)


def test_sigterm_saves_that_step_and_resumes(program, reference, tmp_path):
    place = RunDirectory(tmp_path / "run")

    def terminate(step, row):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM") as stopped:
        fit(program, 0, place, terminate)
    assert stopped.value.exit_status == 143
    saved = checkpoint.steps(place.checkpoints)[-1].name
    assert saved in ("step_000000005.ckpt", "step_000000006.ckpt")
    assert fit(program, 0, place) == place.result()
    reference.assert_equals(place)


def test_sigkill_halfway_and_again_equals_the_uninterrupted_run(
    program, reference, tmp_path
):
    place = RunDirectory(tmp_path / "run")
    code = (
        "import time, pathlib\n"
        "import jax; jax.config.update('jax_numpy_rank_promotion', 'raise')\n"
        "from tests import tiny\n"
        "from cnn_jax.runtime import compilation_cache\n"
        "compilation_cache.enable()\n"  # the test session's
        "from cnn_jax.training.loop import fit\n"
        "from cnn_jax.training.program import Program\n"
        "from cnn_jax.training.run_directory import RunDirectory\n"
        "def slow(step, row):\n"
        "    time.sleep(0.2 if step >= 6 else 0)\n"
        f"fit(Program(tiny.config()), 0, RunDirectory({str(place.path)!r}), slow)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not any(row["step"] >= 6 for row in place.rows()):
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert place.result() is None
    assert fit(program, 0, place) == place.result()
    reference.assert_equals(place)


@pytest.fixture(
    scope="module",
    params=["pmap", pytest.param("shard_map", marks=pytest.mark.slow)],
)
def several(request, tmp_path_factory):
    """The run with up to five steps per dispatch."""
    program = Program(
        tiny.config(steps_per_execution=5, parallel={"mode": request.param})
    )
    path = tmp_path_factory.mktemp("several") / "run"
    return Uninterrupted.train(program, path)


def test_several_steps_a_dispatch_equal_one(several, reference):
    """To rounding, which depends on the optimisations that the default run leaves out.

    The slow test below shows the same bits, with programs compiled as users' are.
    """
    reference.assert_close(several.place)


@pytest.mark.slow
def test_several_steps_a_dispatch_equal_one_bit_for_bit(several, reference):
    reference.assert_equals(several.place)


@pytest.mark.slow
def test_several_steps_a_dispatch_equal_one_on_several_devices(tmp_path):
    one, five = (
        Uninterrupted.train(
            Program(tiny.config(steps_per_execution=most, parallel={"devices": 2})),
            tmp_path / f"run{most}",
        )
        for most in (1, 5)
    )
    one.assert_equals(five.place)


@pytest.mark.parametrize("exact", fast([False], [False, True]))
def test_a_dispatch_is_seen_through_and_the_run_goes_on_with_single_steps(
    several, program, reference, tmp_path, exact
):
    place = RunDirectory(tmp_path / "run")
    taken = []

    def terminate(step, row):
        taken.append(step)
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        fit(several.program, 0, place, terminate)
    # a log row every 3 steps, an evaluation every 6, a checkpoint every 4
    assert taken == [0, 3, 4, 6, 8]
    assert checkpoint.steps(place.checkpoints)[-1].name == "step_000000008.ckpt"
    fit(program, 0, place)
    (reference.assert_equals if exact else reference.assert_close)(place)


def test_another_config_is_refused_with_the_keys_that_differ(reference):
    place = reference.place
    other = Program(tiny.config(batch_size=8, optimizer={"momentum": 0.5}))
    with pytest.raises(ConfigError) as error:
        fit(other, 0, place)
    assert "batch_size: was 16, is 8" in str(error.value)
    assert "optimizer.momentum: was 0.9, is 0.5" in str(error.value)
    assert "steps" not in str(error.value)


def test_a_run_names_its_data_and_refuses_other(program, reference):
    own = program.source.fingerprint
    assert reference.place.config()["data_fingerprint"] == own
    dataset = program.source.dataset
    images = dataset.train.images.copy()
    images[-1, -1, -1] ^= 1  # one pixel of one image
    part = dataclasses.replace(dataset.train, images=images)
    changed = sources.InMemory(dataclasses.replace(dataset, train=part))
    with pytest.raises(ConfigError, match=f"data_fingerprint: was '{own}', is '"):
        fit(Program(tiny.config(), changed), 0, reference.place)


def test_more_devices_may_not_change_what_batch_norm_sees(reference):
    """16 images share statistics; on 8 devices the default would be 2."""
    with pytest.raises(ConfigError, match="bn_images: was 16, is 2"):
        fit(Program(tiny.config(parallel={"devices": 8})), 0, reference.place)


def test_seeds_differ_and_share_a_program(program, reference, tmp_path):
    result = fit(program, 1, RunDirectory(tmp_path / "run"))
    assert result["running_train_loss"] != reference.result["running_train_loss"]


def diverging(**changes):
    return tiny.config(
        model={"name": "tests.training.test_loop:Explosive"},
        schedule={"rates": (1e30,), "boundaries": ()},
        **changes,
    )


def test_a_dispatch_names_the_step_whose_loss_is_not_finite(tmp_path):
    said = []
    for most in (1, 12):
        place = RunDirectory(tmp_path / f"run{most}")
        every = {"log_every": 12, "eval_every": 0, "checkpoint_every": 0}
        program = Program(diverging(steps_per_execution=most, **every))
        with pytest.raises(Diverged) as error:
            fit(program, 0, place)
        assert checkpoint.steps(place.checkpoints) == []
        said.append(str(error.value).partition(" (")[0])
    assert "at step" in said[0]
    assert "at step 12" not in said[0], "the last step of the dispatch is no test"
    assert said[0] == said[1]


def test_a_checkpoint_is_promised_only_where_there_is_one(tmp_path):
    place = RunDirectory(tmp_path / "run")
    with pytest.raises(Diverged, match="no checkpoint was saved before that"):
        fit(Program(diverging(checkpoint_every=0)), 0, place)
    assert checkpoint.steps(place.checkpoints) == []
    place = RunDirectory(tmp_path / "with")
    with pytest.raises(Diverged, match="last good checkpoint is kept in") as error:
        fit(Program(diverging(checkpoint_every=1)), 0, place)
    assert str(place.checkpoints) in str(error.value)
    assert checkpoint.steps(place.checkpoints)


def test_a_result_tells_what_computed_it(reference):
    result = reference.result
    assert result["version"] == importlib.metadata.version("cnn_jax")
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(
        result["date"]
    )
    assert datetime.timedelta(0) < age + datetime.timedelta(seconds=1)
    assert age < datetime.timedelta(hours=2)
    head = subprocess.run(
        ("git", "-C", ROOT, "rev-parse", "HEAD"), capture_output=True, text=True
    )
    if head.returncode == 0:  # not in an unpacked archive
        assert result["commit"].removesuffix("-dirty") == head.stdout.strip()


def test_a_plugin_that_was_edited_is_named(tmp_path, monkeypatch, capsys):
    """Reported for a stopped run; available on request for a finished one."""
    code = "def noise(size):\n    from tests import tiny\n    return tiny.noise(size)\n"
    (tmp_path / "edited_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    program = Program(tiny.config(dataset={"name": "edited_plugin:noise"}, steps=4))
    place = RunDirectory(tmp_path / "run")

    def stop(step, row):
        if step == 4:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fit(program, 0, place, stop)
    assert place.changed_plugins(program.config) == []
    (tmp_path / "edited_plugin.py").write_text(code + "# changed\n")
    assert place.changed_plugins(program.config) == ["edited_plugin"]
    fit(program, 0, place)
    assert "the code of edited_plugin has changed since" in capsys.readouterr().out
    assert place.changed_plugins(program.config) == ["edited_plugin"]


def test_an_edited_module_beside_a_plugin_is_named(tmp_path, monkeypatch):
    package = tmp_path / "my_research"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("SIZE = 40\n")
    code = "from my_research.helper import SIZE\nfrom tests.tiny import noise\n"
    (package / "data.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    dataset = {"name": "my_research.data:noise"}
    program = Program(tiny.config(dataset=dataset, steps=4))
    place = RunDirectory(tmp_path / "run")
    fit(program, 0, place)
    (package / "helper.py").write_text("SIZE = 41\n")
    assert place.changed_plugins(program.config) == ["my_research.helper"]


def test_a_diverging_run_stops_and_keeps_finite_checkpoints(tmp_path):
    place = RunDirectory(tmp_path / "run")
    program = Program(diverging(checkpoint_every=1))
    with pytest.raises(Diverged, match=r"loss is (nan|inf|-inf) at step \d+"):
        fit(program, 0, place)
    for path in checkpoint.steps(place.checkpoints):
        state, _ = checkpoint.read(path, program.initial_state(0))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert place.result() is None


def test_evaluation_counts_every_example_once():
    """40 training and 10 test examples in batches of 24 over 8 devices."""
    errors = {}
    for devices, size in ((1, 1), (8, 24), (8, 64)):
        program = Program(
            tiny.config(parallel={"devices": devices}, eval_batch_size=size)
        )
        state = program.place(program.initial_state(0))
        for split in ("train", "test"):
            found = program.evaluate(state, split)
            errors.setdefault(split, []).append((found["error"], found["loss"]))
    for values in errors.values():
        np.testing.assert_allclose(values, np.broadcast_to(values[0], (3, 2)), 1e-5)


def test_a_dispatch_writes_over_the_state_and_leaves_the_data(several):
    """The whole state is donated: the devices never hold it twice."""
    program, config = several.program, {**several.program.config, "seed": 0}
    state = program.place(program.initial_state(0))
    dispatch = next(feed(program.source, program.devices, config, 0, b""))
    after, _ = program.train(state, dispatch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    kept = (after, program.resident, dispatch.items)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(kept))


def test_nothing_is_traced_or_compiled_again_after_the_first_run(several, tmp_path):
    """Dispatches of one, two and three steps, evaluations, another seed."""
    program = several.program
    assert program.traces == 1
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x + 1)(np.zeros(7))
        assert len(compiled) == 1, "compilations are not heard"
        fit(program, 1, RunDirectory(tmp_path / "run"))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) == 1
    assert program.traces == 1


import flax.linen as nn  # noqa: E402


class Explosive(nn.Module):
    """A linear net without normalisation, which one large step makes overflow."""

    num_classes: int
    depth: int = 8
    shortcut: str = "none"
    widths: tuple = ()

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(8)(x.reshape(x.shape[0], -1))
        return nn.Dense(self.num_classes)(x)
