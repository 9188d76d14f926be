"""The published size of every network, and the counting of parameters."""

import jax
import jax.numpy as jnp
import pytest

from cnn_jax import models
from cnn_jax.models.__main__ import summary_of
from cnn_jax.models.summary import multiply_accumulates

# Trainable parameters, MACs for one image, weight layers, by name in the table.
PINNED = {
    "lenet5": (60_000, 415_680, 6),
    "lenet5_modern": (61_706, 416_520, 5),
    "alexnet": (60_965_224, 724_406_816, 8),
    "alexnet_single": (62_378_344, 1_135_256_096, 8),
    "alexnet_torchvision": (61_100_840, 714_188_480, 8),
    "vgg11": (132_863_336, 7_609_090_048, 11),
    "vgg13": (133_047_848, 11_308_466_176, 13),
    "vgg16_c": (133_638_952, 11_770_888_192, 16),
    "vgg16": (138_357_544, 15_470_264_320, 16),
    "vgg19": (143_667_240, 19_632_062_464, 19),
    "nin_cifar": (966_986, 222_486_528, 9),
    "nin_imagenet": (7_595_176, 1_100_188_800, 12),
    "cifar_resnet": (269_722, 40_551_040, 20),
    "cifar_plain": (269_722, 40_551_040, 20),
    "resnet18": (11_689_512, 1_814_073_344, 18),
    "resnet34": (21_797_672, 3_663_761_408, 34),
    "resnet50": (25_557_032, 3_857_973_248, 50),
    "resnet101": (44_549_160, 7_570_194_432, 101),
    "resnet152": (60_192_808, 11_282_415_616, 152),
    "plain18": (11_515_688, 1_794_805_760, 18),
    "plain34": (21_623_848, 3_644_493_824, 34),
    "plain50": (22_780_456, 3_498_311_680, 50),
    "plain101": (41_772_584, 7_210_532_864, 101),
    "plain152": (57_416_232, 10_922_754_048, 152),
}

# These read lines of digits of any width, through one LeNet-5 (10 classes, or
# 11 of the modern net).
READERS = {"gtn": 60_000, "sdnn": 61_791}


def test_every_registered_net_has_pinned_numbers():
    assert set(models.NETS) == set(PINNED)
    assert set(models.TABLE) == {*PINNED, *READERS}


def test_images_and_classes_of_every_net_are_its_papers():
    lenet = dict.fromkeys(("lenet5", "lenet5_modern"), (32, 1, 10))
    cifar = dict.fromkeys(("nin_cifar", "cifar_resnet", "cifar_plain"), (32, 3, 10))
    alexnet = dict.fromkeys(("alexnet", "alexnet_single"), (227, 3, 1000))
    others = lenet | cifar | alexnet
    for name, net in models.NETS.items():
        found = net.image_size, net.channels, net.num_classes
        assert found == others.get(name, (224, 3, 1000)), name


def parameters(name, image=(224, 224, 3), num_classes=1000, **fields):
    """Count with blocks in loops, so that a deep net takes no longer to trace.

    `test_layout` holds loops to the unrolled nets, of which `summarize` counts.
    """
    module = models.create(name, num_classes=num_classes, **fields)
    if hasattr(module, "stacks"):
        module = module.clone(scan=True)
    images, rngs = jnp.zeros((1, *image)), {"params": jax.random.key(0)}
    # Not `init`, which traces every block.
    _, variables = jax.eval_shape(
        lambda: module.apply({}, images, train=False, rngs=rngs, mutable=True)
    )
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", READERS)
def test_size_of_readers_of_lines(name):
    assert parameters(name, (32, 64, 1), num_classes=10) == READERS[name]


# Their traces take seconds; shallower nets are made of the same blocks.
DEEP = ("resnet101", "resnet152", "plain50", "plain101", "plain152")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name
        for name in PINNED
    ],
)
def test_size_of_registered_net(name):
    found = summary_of(name, {})
    assert (found.parameters, found.macs, found.weight_layers) == PINNED[name]


@pytest.mark.parametrize(
    ("depth", "basic", "a", "b", "c", "gmac_v1", "gmac_v15"),
    [
        (18, True, 11_515_688, 11_689_512, 12_043_816, 1.814, 1.814),
        pytest.param(
            *(34, True, 21_623_848, 21_797_672, 22_716_840, 3.664, 3.664),
            marks=pytest.mark.slow,
        ),
        (50, False, 22_780_456, 25_557_032, 40_128_552, 3.858, 4.089),
        pytest.param(
            *(101, False, 41_772_584, 44_549_160, 76_981_288, 7.570, 7.801),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(152, False, 57_416_232, 60_192_808, 107_335_720, 11.282, 11.514),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_imagenet_shortcuts_and_strides(depth, basic, a, b, c, gmac_v1, gmac_v15):
    name = f"resnet{depth}"
    assert parameters(name, shortcut="A") == a
    assert parameters(name, shortcut="C") == c
    assert PINNED[name][0] == b
    assert round(PINNED[name][1] / 1e9, 3) == gmac_v1
    v15 = summary_of(name, {"bottleneck_stride": "3x3"})
    assert v15.parameters == b
    assert round(v15.macs / 1e9, 3) == gmac_v15
    assert (v15.macs == PINNED[name][1]) == basic


@pytest.mark.parametrize(
    ("depth", "a", "b"),
    [
        (20, 269_722, 272_474),
        (32, 464_154, 466_906),
        pytest.param(44, 658_586, 661_338, marks=pytest.mark.slow),
        pytest.param(56, 853_018, 855_770, marks=pytest.mark.slow),
        pytest.param(110, 1_727_962, 1_730_714, marks=pytest.mark.slow),
        pytest.param(1202, 19_421_274, 19_424_026, marks=pytest.mark.slow),
    ],
)
def test_cifar_family(depth, a, b):
    def size(name, **fields):
        return parameters(name, (32, 32, 3), num_classes=10, depth=depth, **fields)

    assert size("cifar_resnet", shortcut="B") == b
    assert size("cifar_resnet") == size("cifar_plain") == a


@pytest.mark.parametrize(
    ("depth", "size"),
    [(164, 1_703_258), pytest.param(1001, 10_327_706, marks=pytest.mark.slow)],
)
def test_preactivation_bottleneck_family(depth, size):
    fields = {"block": "bottleneck", "preactivation": True, "shortcut": "B"}
    found = parameters("cifar_resnet", (32, 32, 3), 10, depth=depth, **fields)
    assert found == size


@pytest.mark.parametrize(
    ("name", "fields", "size"),
    [
        ("nin_cifar", {"num_classes": 100}, 984_356),
        # torchvision's vgg16_bn less the 4,224 biases that batch norm undoes
        ("vgg16", {"batch_norm": True}, 138_365_992 - 4_224),
        (
            "vgg16",
            {
                "batch_norm": True,
                "image_size": 32,
                "hidden": (),
                "num_classes": 10,
            },
            14_724_042,
        ),
    ],
)
def test_size_of_variants(name, fields, size):
    assert summary_of(name, fields).parameters == size


def test_layers_add_up_and_carry_their_shapes():
    found = summary_of("resnet18", {})
    assert sum(layer.parameters for layer in found.layers) == found.parameters
    assert sum(layer.macs for layer in found.layers) == found.macs
    layers = {layer.name: layer for layer in found.layers}
    assert layers["stem_conv"].output == (112, 112, 64)
    assert layers["stem_conv"].macs == 112 * 112 * 64 * 7 * 7 * 3
    assert layers["stage4_block2/bn2"].parameters == 2 * 512
    assert layers["head"][2:] == ((1000,), 513_000, 512_000)


def count(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    program = jax.make_jaxpr(function)(*arrays).jaxpr
    return sum(number for _, number in multiply_accumulates(program))


def test_macs_of_products_wherever_they_stand():
    product = 2 * 3 * 4
    assert count(jnp.dot, (2, 3), (3, 4)) == product
    assert count(jax.jit(jnp.dot), (2, 3), (3, 4)) == product
    assert count(lambda a, b: jax.checkpoint(jnp.dot)(a, b), (2, 3), (3, 4)) == product

    @jax.custom_vjp
    def custom(a, b):
        return a @ b

    custom.defvjp(lambda a, b: (a @ b, (a, b)), lambda r, g: (g @ r[1].T, r[0].T @ g))
    assert count(custom, (2, 3), (3, 4)) == product

    def repeated(a, b):
        return jax.lax.scan(lambda c, _: (c @ b, None), a, None, length=5)[0]

    assert count(repeated, (2, 3), (3, 3)) == 5 * 2 * 3 * 3

    def branching(a, b):
        return jax.lax.cond(a.sum() > 0, lambda: a @ b @ b, lambda: a @ b)

    assert count(branching, (2, 3), (3, 3)) == 2 * 2 * 3 * 3

    def endless(a, b):
        return jax.lax.while_loop(lambda c: c.sum() > 0, lambda c: c @ b, a)

    with pytest.raises(NotImplementedError, match="while loop"):
        count(endless, (2, 3), (3, 3))


def test_macs_of_a_grouped_strided_convolution():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (2, 2),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )

    # 3x3 outputs of 6 maps, each a sum over 3x3 pixels of 2 of the 4 channels
    assert count(convolve, (1, 7, 7, 4), (3, 3, 2, 6)) == 3 * 3 * 6 * 3 * 3 * 2
