"""Weights exchanged with torchvision, and the errors for invalid ones."""

import jax
import numpy as np
import pytest

from cnn_jax import models, names
from cnn_jax.models import torchvision
from tests.models import drawn
from tests.needs import needs
from tests.tiers import fast

NARROW = {
    "alexnet": {"widths": (4, 6, 8, 6, 4), "hidden": (10, 12)},
    "vgg": {"widths": (2, 3, 4, 5, 6), "hidden": (10, 12)},
    "resnet": {"widths": (2, 3, 4, 5)},
}
# torchvision's names of the layers with weights, from its own files.
CONVOLUTIONS = {
    "alexnet": (0, 3, 6, 8, 10),
    "vgg11": (0, 3, 6, 8, 11, 13, 16, 18),
    "vgg13": (0, 2, 5, 7, 10, 12, 15, 17, 20, 22),
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "vgg19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
    "vgg11_bn": (0, 4, 8, 11, 15, 18, 22, 25),
    "vgg13_bn": (0, 3, 7, 10, 14, 17, 21, 24, 28, 31),
    "vgg16_bn": (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
    "vgg19_bn": (0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49),
}
CLASSIFIER = {"alexnet": (1, 4, 6), "vgg": (0, 3, 6)}
BLOCKS = {
    "resnet18": ((2, 2, 2, 2), 2),
    "resnet34": ((3, 4, 6, 3), 2),
    "resnet50": ((3, 4, 6, 3), 3),
    "resnet101": ((3, 4, 23, 3), 3),
    "resnet152": ((3, 8, 36, 3), 3),
}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def family(name):
    return next(key for key in NARROW if name.startswith(key))


def narrow(name, **fields):
    fields = {**NARROW[family(name)], **fields}
    return torchvision.create(name, num_classes=7, **fields)


def expected_names(name):
    if family(name) != "resnet":
        layers = [f"classifier.{n}" for n in CLASSIFIER[family(name)]]
        layers += [f"features.{n}" for n in CONVOLUTIONS[name]]
        found = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
        if name.endswith("_bn"):
            norms = [f"features.{n + 1}" for n in CONVOLUTIONS[name]]
            found |= {f"{layer}.{part}" for layer in norms for part in NORM}
        return found
    sizes, depth = BLOCKS[name]
    pairs = [("conv1", "bn1")]
    for stage, size in enumerate(sizes, start=1):
        for block in range(size):
            at = f"layer{stage}.{block}"
            pairs += [(f"{at}.conv{n}", f"{at}.bn{n}") for n in range(1, depth + 1)]
            if block == 0 and (stage > 1 or depth == 3):
                pairs.append((f"{at}.downsample.0", f"{at}.downsample.1"))
    found = {f"{conv}.weight" for conv, _ in pairs} | {"fc.weight", "fc.bias"}
    return found | {f"{norm}.{part}" for _, norm in pairs for part in NORM}


# With torch, `test_full_size_shapes` compares the names of all nets.
@pytest.mark.parametrize("name", ["alexnet", "vgg16_bn", "resnet18", "resnet50"])
def test_names_are_those_of_torchvision(name):
    module = narrow(name)
    size = 224 if family(name) != "resnet" else 32
    shapes = drawn.shapes(module, size, size, 3)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    found = torchvision.to_state_dict(module, zeros)
    assert set(found) == expected_names(name)


def test_number_of_tensors_that_torchvision_saves():
    assert len(expected_names("resnet18")) == 122
    assert len(expected_names("resnet50")) == 320


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg11_bn", "resnet18"])
def test_variables_survive_the_round_trip_bit_by_bit(name):
    module = narrow(name)
    variables = drawn.variables(module, 224, 224, 3)
    state = torchvision.to_state_dict(module, variables)
    back = torchvision.from_state_dict(module, state)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def state_of(name="resnet18", **fields):
    module = narrow(name, **fields)
    return module, torchvision.to_state_dict(
        module, drawn.variables(module, 224, 224, 3)
    )


def test_missing_tensors_are_named():
    module, state = state_of()
    del state["layer2.0.downsample.0.weight"], state["fc.bias"]
    message = r"of this ResNet: it lacks 'layer2.0.downsample.0.weight' and 1 more"
    with pytest.raises(ValueError, match=message):
        torchvision.from_state_dict(module, state)


def test_tensors_of_another_net_are_named():
    _, state = state_of("vgg11")
    with pytest.raises(ValueError, match=r"ResNet: it lacks 'conv1.weight' and 101 mo"):
        torchvision.from_state_dict(narrow("resnet18"), state)
    module, state = state_of()
    state["layer9.weight"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"unknown tensor 'layer9.weight' \(102 tens"):
        torchvision.from_state_dict(module, state)


def test_tensors_of_another_shape_are_named():
    _, state = state_of()
    other = torchvision.create("resnet18", num_classes=9, **NARROW["resnet"])
    message = r"'fc.weight' should have shape \(9, 5\), got \(7, 5\)"
    with pytest.raises(ValueError, match=message):
        torchvision.from_state_dict(other, state)


def test_variables_of_another_net_are_named():
    module = narrow("resnet34")
    variables = drawn.variables(narrow("resnet18"), 64, 64, 3)
    with pytest.raises(ValueError, match="'params/stage1_block3/conv1' is missing"):
        torchvision.to_state_dict(module, variables)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("lenet5", {}, "torchvision has no LeNet5; choices: alexnet, vgg11"),
        ("alexnet", {}, r"torchvision's AlexNet has towers 1, but this net 2"),
        ("alexnet_torchvision", {"lrn": True}, "has lrn False, but this net True"),
        (
            "alexnet_torchvision",
            {"hidden": (5,)},
            "2 hidden dense layers, but this",
        ),
        ("vgg16_c", {}, "torchvision has no VGG C"),
        ("vgg16", {"image_size": 32}, "has image_size 224, but this net 32"),
        ("resnet50", {}, "has bottleneck_stride '3x3', but this net '1x1'"),
        ("resnet18", {"shortcut": "A"}, "has shortcut 'B', but this net 'A'"),
        ("plain18", {}, "has shortcut 'B', but this net 'none'"),
        ("cifar_resnet", {}, "has layout 'imagenet', but this net 'cifar'"),
    ],
)
def test_nets_that_torchvision_has_not(name, fields, message):
    module = models.create(name, num_classes=10, **fields)
    with pytest.raises(names.ConfigError, match=message):
        torchvision.links(module)


def test_unknown_names_list_the_choices():
    with pytest.raises(names.ConfigError, match=r"'resnet20' \(did you mean 'resnet"):
        torchvision.create("resnet20")


@needs("torch")
class TestWithTorch:
    """Against the nets written in torch."""

    @staticmethod
    def peer(name, fields):
        from experiments.benchmark.peers import torch_nets

        if family(name) == "alexnet":
            return torch_nets.alexnet(7, **fields)
        if family(name) == "vgg":
            letter = {"11": "A", "13": "B", "16": "D", "19": "E"}[name[3:5]]
            return torch_nets.vgg(7, letter, **fields, batch_norm=name.endswith("bn"))
        sizes, depth = BLOCKS[name]
        return torch_nets.resnet(7, sizes, **fields, bottleneck=depth == 3)

    @pytest.mark.parametrize(
        "name",
        fast(
            ["alexnet", "vgg16_bn", "resnet50"],
            ["alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet34", "resnet50"],
        ),
    )
    def test_logits_survive_both_ways(self, name):
        import torch

        from tests.models import torch_weights

        fields = NARROW[family(name)]
        peer = torch_weights.randomize(self.peer(name, fields))
        module = narrow(name)
        size = 224 if family(name) != "resnet" else 64
        images = np.asarray(drawn.images(2, size, size, 3))
        variables = torchvision.from_state_dict(module, torch_weights.state_dict(peer))
        expected = torch_weights.logits(peer, images)
        found = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, images)
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()

        fresh = torch_weights.randomize(self.peer(name, fields), seed=1)
        state = torchvision.to_state_dict(module, variables)
        fresh.load_state_dict({key: torch.tensor(t) for key, t in state.items()})
        again = torch_weights.logits(fresh, images)
        assert np.abs(again - expected).max() < 1e-5 * np.abs(expected).max()

    @pytest.mark.parametrize(
        "name", fast(["alexnet", "vgg11_bn", "resnet50"], torchvision.NETS)
    )
    def test_full_size_shapes(self, name):
        import torch

        fields = {
            "alexnet": {"widths": (64, 192, 384, 256, 256), "hidden": (4096, 4096)},
            "vgg": {"widths": (64, 128, 256, 512, 512), "hidden": (4096, 4096)},
            "resnet": {"widths": (64, 128, 256, 512)},
        }[family(name)]
        with torch.device("meta"):  # nothing is allocated
            peer = self.peer(name, fields)
        module = torchvision.create(name, num_classes=7)
        zeros = jax.tree.map(
            lambda leaf: np.broadcast_to(np.float32(0), leaf.shape),
            drawn.shapes(module, 224, 224, 3),
        )
        found = torchvision.to_state_dict(module, zeros)
        assert set(found) == expected_names(name)
        assert {key: value.shape for key, value in found.items()} == {
            key: tuple(tensor.shape) for key, tensor in peer.state_dict().items()
        }
