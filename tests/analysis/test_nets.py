"""The test networks are alive: a change to any block changes the output."""

import jax
import numpy as np
import pytest

from cnn_jax.analysis import blocks
from tests.analysis import nets


@pytest.mark.parametrize("family", ["plain", "residual"])
def test_each_block_moves_the_outputs(family):
    net, variables = nets.build(family)
    images = nets.batch()["image"]
    apply = jax.jit(lambda variables: net.apply(variables, images, train=False))
    whole = np.asarray(apply(variables))
    for site in blocks.sites(net, variables, nets.IMAGE):
        for layer in ("conv1", "conv2"):
            moved = jax.tree.map(lambda leaf: leaf, variables)
            weights = moved["params"][site.name][layer]
            weights["kernel"] = -weights["kernel"]
            change = np.abs(np.asarray(apply(moved)) - whole).max(0)
            assert change.min() > 1e-2, (site.name, layer)
