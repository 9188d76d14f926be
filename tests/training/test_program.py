"""The network and data that a config describes, before compilation."""

import jax
import jax.numpy as jnp
import pytest

from cnn_jax.models.layers import BatchNorm, GroupNorm
from cnn_jax.names import ConfigError
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
