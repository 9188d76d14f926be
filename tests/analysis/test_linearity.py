"""Relative changes of blocks whose output is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.analysis import layers, linearity
from tests.analysis import nets


def test_changes_against_numpy():
    net, variables = nets.build(depth=14)
    batch = nets.batch()
    seen = {}
    layers.watch(
        net,
        variables,
        batch["image"],
        lambda module, x, y: seen.update({layers.name_of(module): (x, y)}),
    )
    found = linearity.relative_changes(net, variables, [batch, batch])
    # The first blocks of stages 2 and 3 change the shape.
    names = ["stage1_block1", "stage1_block2", "stage2_block2", "stage3_block2"]
    assert list(found) == names
    for name in names:
        before, after = (np.array(a)[:3].reshape(3, -1) for a in seen[name])
        ratio = np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1)
        assert found[name] == pytest.approx(ratio.mean(), rel=1e-5)


def test_a_zero_branch_changes_nothing():
    net, variables = nets.build()
    block = variables["params"]["stage1_block1"]
    block["bn2"] = jax.tree.map(jnp.zeros_like, block["bn2"])
    found = linearity.relative_changes(net, variables, [nets.batch()])
    assert found == {"stage1_block1": 0}


def test_an_input_of_zeros_does_not_count():
    net, variables = nets.build()
    bn = variables["params"]["stem_bn"]
    bn["scale"], bn["bias"] = jnp.zeros(2), -jnp.ones(2)
    found = linearity.relative_changes(net, variables, [nets.batch()])
    assert np.isnan(found["stage1_block1"])
