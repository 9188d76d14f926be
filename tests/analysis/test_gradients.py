"""Gradient norms against finite differences, on a net of 8 layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.analysis import gradients, layers
from cnn_jax.training.losses import softmax_cross_entropy

IMAGE = (4, 4, 1)


def initial(net):
    image = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    return net.lazy_init(jax.random.key(0), image, train=False)


def test_norms_against_finite_differences():
    """Perturbs every weight of some layers, in training mode."""
    net = models.create("cifar_resnet", 3, depth=8, widths=(2, 2, 2))
    variables = initial(net)
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.array(rng.normal(size=(4, *IMAGE)), jnp.float32),
        "label": jnp.array([0, 1, 2, 1]),
        "mask": jnp.array([1.0, 1.0, 1.0, 0.0]),
    }

    @jax.jit
    def objective(params):
        outputs, _ = net.apply(
            {**variables, "params": params},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
        )
        return (softmax_cross_entropy(outputs, batch) * batch["mask"]).sum() / 3

    rows = {
        row["name"]: row
        for row in gradients.norms(net, variables, [batch], softmax_cross_entropy)
    }
    assert rows["stem_conv"]["loss"] == pytest.approx(
        float(objective(variables["params"])), rel=1e-5
    )
    paths = layers.weight_layers(net, variables, IMAGE)
    assert list(rows) == list(paths)
    for name in ("stem_conv", "stage2_block1/conv1", "head"):
        path, found = paths[name], []
        kernel = np.array(layers.pick(variables["params"], path))
        for index in np.ndindex(kernel.shape):
            ends = []
            for nudge in (1e-2, -1e-2):
                moved = kernel.copy()
                moved[index] += nudge
                params = jax.tree.map(lambda leaf: leaf, variables["params"])
                layers.pick(params, path[:-1])[path[-1]] = moved
                ends.append(float(objective(params)))
            found.append((ends[0] - ends[1]) / 2e-2)
        expected = float(np.sqrt(np.square(found).sum()))
        assert rows[name]["gradient_norm"] == pytest.approx(expected, rel=0.03), name
        assert rows[name]["weight_norm"] == pytest.approx(np.linalg.norm(kernel))


def test_norms_are_averaged_over_batches_and_need_one():
    net = models.create("cifar_resnet", 3, depth=8, widths=(2, 2, 2))
    rng = np.random.default_rng(0)
    variables = initial(net)
    batches = [
        {
            "image": jnp.array(rng.normal(size=(4, *IMAGE)), jnp.float32),
            "label": jnp.array([0, 1, 2, 1]),
            "mask": jnp.ones(4),
        }
        for _ in range(2)
    ]

    def of(chosen):
        rows = gradients.norms(net, variables, chosen, softmax_cross_entropy)
        return np.array([row["gradient_norm"] for row in rows])

    np.testing.assert_allclose(
        of(batches), (of(batches[:1]) + of(batches[1:])) / 2, rtol=1e-5
    )
    with pytest.raises(ValueError, match="at least one"):
        of([])
