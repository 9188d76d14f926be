"""Layer responses against NumPy, and which layers have one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.analysis import layers, responses

IMAGE = (6, 6, 3)


def build(**fields):
    fields = {"depth": 8, "widths": (2, 3, 4), **fields}
    net = models.create("cifar_resnet", 3, **fields)
    image = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    return net, net.lazy_init(jax.random.key(0), image, train=False)


def batches(sizes=(5, 3)):
    rng = np.random.default_rng(0)
    for size in sizes:
        image = rng.normal(2, 3, (6, *IMAGE)).astype(np.float32)
        image[size:] = 1e6  # padding must be ignored
        mask = (np.arange(6) < size).astype(np.float32)
        yield {"image": jnp.array(image), "mask": jnp.array(mask)}


def test_the_first_layer_against_numpy():
    net, variables = build()
    rng = np.random.default_rng(1)
    bn = variables["params"]["stem_bn"]
    bn["scale"] = jnp.array(rng.uniform(0.5, 2, 2), jnp.float32)
    bn["bias"] = jnp.array(rng.normal(size=2), jnp.float32)
    stats = variables["batch_stats"]["stem_bn"]
    stats["mean"] = jnp.array(rng.normal(size=2), jnp.float32)
    stats["var"] = jnp.array(rng.uniform(0.5, 2, 2), jnp.float32)
    kernel = np.array(variables["params"]["stem_conv"]["kernel"], np.float64)

    real = np.concatenate(
        [np.array(b["image"])[np.array(b["mask"]) > 0] for b in batches()]
    ).astype(np.float64)
    padded = np.pad(real, ((0, 0), (1, 1), (1, 1), (0, 0)))
    conv = np.zeros((len(real), 6, 6, 2))
    for i in range(3):
        for j in range(3):
            conv += padded[:, i : i + 6, j : j + 6] @ kernel[i, j]
    y = (conv - np.array(stats["mean"])) / np.sqrt(np.array(stats["var"]) + 1e-5)
    y = y * np.array(bn["scale"]) + np.array(bn["bias"])

    found = responses.standard_deviations(net, variables, batches())
    assert found["stem_conv"] == pytest.approx(y.std(), rel=1e-5)


def test_one_response_for_each_3x3_layer_in_forward_order():
    net, variables = build(block="bottleneck", depth=11, shortcut="B")
    found = responses.standard_deviations(net, variables, batches())
    assert list(found) == ["stem_conv", *(f"stage{s}_block1/conv2" for s in (1, 2, 3))]
    every = layers.weight_layers(net, variables, IMAGE)
    assert list(every)[:6] == [
        "stem_conv",
        *(f"stage1_block1/conv{n}" for n in (1, 2, 3)),
        "stage1_block1/shortcut_conv",
        "stage2_block1/conv1",
    ]
    assert every["head"] == ("head", "kernel")


def test_a_response_is_after_batch_norm_and_before_addition():
    net, variables = build()
    bn = variables["params"]["stage1_block1"]["bn2"]
    bn["scale"] = jnp.zeros(2)
    found = responses.standard_deviations(net, variables, batches())
    assert found["stage1_block1/conv2"] == 0
    assert found["stage1_block1/conv1"] > 0.1


def test_the_last_layer_of_a_preactivation_block_has_no_norm_of_its_own():
    net, variables = build(preactivation=True)
    image = next(batches())["image"]
    found = responses.responses(net, variables, image)
    seen = {}
    layers.watch(
        net,
        variables,
        image,
        lambda module, _, y: seen.update({layers.name_of(module): y}),
    )
    block = "stage1_block1"
    np.testing.assert_array_equal(found[f"{block}/conv1"], seen[f"{block}/bn1"])
    np.testing.assert_array_equal(found[f"{block}/conv2"], seen[f"{block}/conv2"])
