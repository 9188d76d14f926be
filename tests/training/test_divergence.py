"""Non-finite losses and parameters: the run stops and saves nothing bad."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.data import Arrays, Dataset
from cnn_jax.training import checkpoint
from cnn_jax.training.loop import Diverged, fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny
from tests.tiers import fast


def saved(place, program):
    """Steps of the checkpoints, whose weights are all finite."""
    found = []
    for path in checkpoint.steps(place.checkpoints):
        state, _ = checkpoint.read(path, program.initial_state(0))
        weights = jax.tree.leaves((state.params, state.batch_stats))
        assert all(np.isfinite(leaf).all() for leaf in weights)
        found.append(int(state.step))
    return found


def with_a_blank(size):
    """The tiny set with an all-black last training image."""
    whole = tiny.noise(size)
    images = whole.train.images.copy()
    images[-1] = 0
    return Dataset("blank", 3, Arrays(images, whole.train.labels), whole.test)


def own_contrast():
    """Each image divided by its standard deviation: 0 / 0 without contrast."""

    def preprocess(images):
        x = images.astype(jnp.float32) / 255
        return x / x.std((1, 2, 3), keepdims=True)

    return preprocess


def test_a_poisoned_batch(tmp_path):
    place = RunDirectory(tmp_path / "run")
    here = "tests.training.test_divergence"
    program = Program(
        tiny.config(
            dataset={"name": f"{here}:with_a_blank"},
            preprocess={"name": f"{here}:own_contrast"},
            checkpoint_every=1,
            eval_every=0,
        )
    )
    batches = program.source.train_batches(0, 16, 0)
    poisoned = next(
        step for step, (item, _) in enumerate(batches, 1) if 39 in item["index"]
    )
    assert poisoned > 1
    with pytest.raises(Diverged, match=f"loss is nan at step {poisoned} "):
        fit(program, 0, place)
    assert saved(place, program)[-1] == poisoned - 1
    assert place.result() is None


def breaks_at(learning_rate, step):
    """An optimizer whose update is infinite at that step only."""

    def update(updates, count, params=None):
        del params
        factor = jnp.where(count == step - 1, jnp.inf, 1.0)
        return jax.tree.map(
            lambda leaf: -learning_rate * leaf * factor, updates
        ), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


@pytest.mark.parametrize("step", fast([12], [8, 12]))
def test_an_update_that_breaks_the_parameters_of_a_checkpoint(tmp_path, step):
    """The loss of that step is finite: it was computed before the update."""
    place = RunDirectory(tmp_path / "run")
    config = tiny.config(eval_every=0)
    name = "tests.training.test_divergence:breaks_at"
    program = Program({**config, "optimizer": {"name": name, "step": step}})
    with pytest.raises(Diverged, match=rf"params\.\S+ is not finite after step {step}"):
        fit(program, 0, place)
    assert saved(place, program)[-1] == step - 4
    assert place.result() is None


def test_a_diverged_run_of_a_study_is_not_a_success(program, tmp_path):
    place = RunDirectory(tmp_path / "run")
    with place.open_for_training({**program.config, "seed": 0}):
        place.finish({"status": "diverged", "message": "the loss is nan at step 3"})
    with pytest.raises(Diverged, match="the loss is nan at step 3"):
        fit(program, 0, place)


def test_an_evaluation_that_is_not_finite_is_no_result(program, tmp_path, monkeypatch):
    """The weights are finite, and so is the training loss."""
    nothing = {"loss": float("nan"), "error": 0.5}
    monkeypatch.setattr(type(program), "evaluate", lambda *_, **__: nothing)
    place = RunDirectory(tmp_path / "run")
    with pytest.raises(Diverged, match="loss of the train set is nan after step 6"):
        fit(program, 0, place)
    assert place.result() is None
    assert saved(place, program)[-1] == 4
