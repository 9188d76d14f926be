"""Every network's logits against an independent implementation in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.models.summary import summarize
from tests.needs import REASONS, needs
from tests.tiers import fast

pytest.importorskip("torch", reason=REASONS["torch"])
from experiments.benchmark.peers import torch_nets
from tests.models import torch_weights

pytestmark = needs("torch")

# Fewer blocks than in the table: each takes seconds to compile.
SHORT = (1, 2, 1, 1)
SHORT_BOTTLENECK = {"depth": 17, "stage_sizes": SHORT}
NIN_CIFAR = [((5, 1, 2), (192, 160, 96)), ((5, 1, 2), (192, 192, 192))]
NIN_CIFAR += [((3, 1, 1), (192, 192, 7))]
NIN_IMAGENET = [((11, 4, 0), (96, 96, 96)), ((5, 1, 2), (256, 256, 256))]
NIN_IMAGENET += [((3, 1, 1), (384, 384, 384)), ((3, 1, 1), (1024, 1024, 7))]
ALEXNET = ((8, 12, 16, 12, 8), (20, 24))
VGG = ((4, 6, 8, 10, 12), (20, 24))


def alexnet(name, size, **torch_fields):
    widths, hidden = ALEXNET
    peer = torch_nets.alexnet(7, widths, hidden, **torch_fields)
    return name, {"widths": widths, "hidden": hidden}, size, peer


def vgg(name, letter, **fields):
    widths, hidden = VGG
    peer = torch_nets.vgg(7, letter, widths, hidden, **fields)
    return name, {"widths": widths, "hidden": hidden, **fields}, 224, peer


def resnet(name, sizes, fields, size=64, widths=(4, 6, 8, 10), **torch_fields):
    peer = torch_nets.resnet(7, sizes, widths, **torch_fields)
    return name, {"widths": widths, **fields}, size, peer


# Made when a test asks for it: torch draws weights on construction.
CASES = {
    "alexnet": lambda: alexnet("alexnet", 227, groups=2, padding=0, lrn=True),
    "alexnet_single": lambda: alexnet("alexnet_single", 227, padding=0, lrn=True),
    "alexnet_torchvision": lambda: alexnet("alexnet_torchvision", 224),
    "vgg11": lambda: vgg("vgg11", "A"),
    "vgg13": lambda: vgg("vgg13", "B"),
    "vgg16_c": lambda: vgg("vgg16_c", "C"),
    "vgg16": lambda: vgg("vgg16", "D"),
    "vgg19": lambda: vgg("vgg19", "E"),
    "nin_cifar": lambda: (
        "nin_cifar",
        {},
        32,
        torch_nets.nin(NIN_CIFAR),
    ),
    "nin_imagenet": lambda: (
        "nin_imagenet",
        {},
        224,
        torch_nets.nin(NIN_IMAGENET),
    ),
    "resnet18-odd-size": lambda: resnet("resnet18", (2, 2, 2, 2), {}, size=75),
    "resnet18-A": lambda: resnet(
        "resnet18", (2, 2, 2, 2), {"shortcut": "A"}, shortcut="A"
    ),
    "resnet18-C": lambda: resnet(
        "resnet18", (2, 2, 2, 2), {"shortcut": "C"}, shortcut="C"
    ),
    "resnet18-v2": lambda: resnet(
        "resnet18", (2, 2, 2, 2), {"preactivation": True}, preactivation=True
    ),
    "plain18": lambda: resnet("plain18", (2, 2, 2, 2), {}, shortcut="none"),
    "resnet50-v1": lambda: resnet(
        "resnet50", SHORT, SHORT_BOTTLENECK, bottleneck=True, v1=True
    ),
    "resnet50-v1.5": lambda: resnet(
        "resnet50",
        SHORT,
        {**SHORT_BOTTLENECK, "bottleneck_stride": "3x3"},
        bottleneck=True,
    ),
    "plain50": lambda: resnet(
        "plain50", SHORT, SHORT_BOTTLENECK, bottleneck=True, v1=True, shortcut="none"
    ),
    "cifar_resnet": lambda: resnet(
        "cifar_resnet",
        (2, 2, 2),
        {"depth": 14},
        size=32,
        widths=(4, 8, 12),
        cifar=True,
        shortcut="A",
    ),
    "cifar_plain": lambda: resnet(
        "cifar_plain",
        (2, 2, 2),
        {"depth": 14},
        size=32,
        widths=(4, 8, 12),
        cifar=True,
        shortcut="none",
    ),
    "cifar_resnet-v2-bottleneck": lambda: resnet(
        "cifar_resnet",
        (2, 2, 2),
        {"depth": 20, "block": "bottleneck", "shortcut": "B", "preactivation": True},
        size=32,
        widths=(4, 6, 8),
        cifar=True,
        bottleneck=True,
        v1=True,
        preactivation=True,
    ),
}

# One of each implementation and each kind of shortcut.
QUICK = [
    *("alexnet", "vgg16_c", "nin_cifar", "resnet18-odd-size", "resnet18-A"),
    *("resnet50-v1.5", "cifar_plain", "cifar_resnet-v2-bottleneck"),
]

# They have other numbers of the same blocks as the nets above; LeNet-5 is compared
# with NumPy.
ELSEWHERE = {"resnet34", "resnet101", "resnet152", "plain34", "plain101", "plain152"}
ELSEWHERE |= {"lenet5", "lenet5_modern"}


def test_every_registered_net_has_a_peer():
    assert {case.partition("-")[0] for case in CASES} == set(models.NETS) - ELSEWHERE


@pytest.mark.parametrize("case", fast(QUICK, CASES))
def test_logits_agree_with_torch(case):
    name, fields, size, peer = CASES[case]()
    torch_weights.randomize(peer)
    module = models.create(name, num_classes=7, **fields)
    images = np.random.default_rng(0).normal(size=(2, size, size, 3))
    images = images.astype(np.float32)
    layers = [layer.name for layer in summarize(module, (size, size, 3)).layers]
    variables = torch_weights.variables_of(peer, images, layers)
    apply = jax.jit(lambda v, x: module.apply(v, x, train=False))
    found = apply(variables, jnp.asarray(images))
    expected = torch_weights.logits(peer, images)
    assert np.ptp(expected) > 1e-3
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
