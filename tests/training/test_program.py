"""The network and data that a config describes, before compilation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from cnn_jax.models.layers import BatchNorm, GroupNorm
from cnn_jax.names import ConfigError
from cnn_jax.training import provenance
from cnn_jax.training.feed import feed
from cnn_jax.training.program import Program
from tests import tiny
from tests.drawn_configs import LINES

NET = tiny.CONFIG["model"]


def norm_of(**changes):
    return Program(tiny.config(**changes)).model.norm


def test_batch_norms_fields_are_the_configs_and_its_groups_the_runs():
    norm = norm_of(
        model={"norm": {"name": "batch", "epsilon": 1e-3}},
        parallel={"bn_group_size": 4},
    )(name=None)
    assert isinstance(norm, BatchNorm)
    assert (norm.epsilon, norm.groups) == (1e-3, 4)
    assert norm_of(parallel={"bn_group_size": 4})(name=None).groups == 4


def test_a_net_with_group_norm_has_no_running_statistics():
    program = Program(tiny.config(model={"norm": {"name": "group", "groups": 2}}))
    assert isinstance(program.model.norm(name=None), GroupNorm)
    state = program.initial_state(0)
    assert jax.tree.leaves(state.batch_stats) == []
    logits = jax.eval_shape(
        lambda params, x: program.model.apply({"params": params}, x, train=False),
        state.params,
        jax.ShapeDtypeStruct((2, 6, 6, 1), jnp.float32),
    )
    assert logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NET | {"norm": "grup"}, "did you mean 'group'"),
        (
            NET | {"norm": {"name": "group", "groups": 4}},
            "2 channels of stem_bn are not div",
        ),
        ({"name": "lenet5", "norm": "group"}, "unknown field of model 'lenet5' 'norm'"),
    ],
)
def test_a_norm_that_cannot_be_is_refused(model, message):
    with pytest.raises(ConfigError, match=message):
        Program({**tiny.config(), "model": model})


@pytest.mark.parametrize("width", [1e6, 3e38])  # 3e38: sizes that no int64 holds
def test_a_net_too_large_for_the_machine_is_refused(width):
    config = tiny.config()
    config["model"] = {"name": "nin_cifar", "width": width}
    with pytest.raises(ConfigError, match=r"config\.model: .* GiB .* make it smaller"):
        Program(config)


class Columns(nn.Module):
    """Scores of every column of the image instead of the whole."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(x.mean(1))


class Other(nn.Module):
    """More or fewer scores than there are classes."""

    num_classes: int
    scores: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.scores)(x.mean((1, 2)))


@pytest.mark.parametrize(
    ("net", "fields", "shape"),
    [
        ("Columns", {}, r"\(1, 6, 3\)"),
        ("Other", {"scores": 2}, r"\(1, 2\)"),
        ("Other", {"scores": 4}, r"\(1, 4\)"),
    ],
)
def test_outputs_that_do_not_fit_the_classes_are_refused(net, fields, shape):
    config = {**tiny.config(), "model": {"name": f"{__name__}:{net}", **fields}}
    with pytest.raises(ConfigError, match=rf"outputs of shape {shape} .* \(1, 3\)"):
        Program(config)


def test_batch_norm_is_recorded_where_there_is_some():
    norms = {"name": "group", "groups": 2}
    assert provenance.recorded(Program(tiny.config()))["bn_images"] == 16
    without = provenance.recorded(Program(tiny.config(model={"norm": norms})))
    assert "bn_images" not in without


def test_gradients_are_clipped_to_the_configs_norm():
    sgd = {"momentum": 0.0, "weight_decay": 0.0}
    program = Program(tiny.config(optimizer=sgd, clip_norm=1e-3))
    state = program.place(program.initial_state(0))
    before = program.fetch(state).params
    dispatch = next(feed(program.source, program.devices, program.config, 0, b""))
    after = program.fetch(program.train(state, dispatch)[0]).params
    squares = jax.tree.map(lambda new, old: ((new - old) ** 2).sum(), after, before)
    length = sum(jax.tree.leaves(squares)) ** 0.5
    assert length == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_batch_larger_than_the_training_set():
    with pytest.raises(ConfigError, match=r"batch_size 41 .* set of 40 images"):
        Program(tiny.config(batch_size=41))
    Program(tiny.config(batch_size=40))


def test_batch_of_lines_that_are_made_anew():
    """An infinite stream has no largest batch size."""
    sections = {
        "dataset": {**LINES, "digits": {"name": "digits"}},
        "model": {"name": "sdnn"},
        "loss": {"name": "strings"},
        "preprocess": {"name": "interval"},
    }
    assert LINES["num_lines"] < 16
    Program({**tiny.config(batch_size=16), **sections})
