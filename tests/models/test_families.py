"""Weights of public PyTorch models: the same logits after conversion both ways."""

import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.models import families
from tests.models import drawn
from tests.needs import needs

WIDTHS = (4, 8, 16)


def narrow(name, **fields):
    widths = (2, 3, 4, 5) if name.startswith("timm/") else WIDTHS
    return families.create(name, num_classes=7, widths=widths, **fields)


def variables_of(module, side=32):
    return drawn.variables(module, side, side, 3)


def test_the_depths_that_the_families_publish():
    assert {name for name in families.NETS if name.startswith("akamaster/")} == {
        f"akamaster/resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)
    }
    assert sum(name.startswith("chenyaofo/") for name in families.NETS) == 8
    assert families.NETS["timm/resnet50"] == families.NETS["resnet50"]
    constants = families.NETS["chenyaofo/cifar100_resnet20"]
    assert constants.mean == (0.5070, 0.4865, 0.4409)
    assert constants.std == (0.2673, 0.2564, 0.2761)
    assert families.NETS["akamaster/resnet20"].mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "tensors", "some"),
    [
        ("akamaster/resnet20", 19 * 6 + 2, "linear.weight"),
        ("chenyaofo/cifar10_resnet20", 21 * 6 + 2, "layer2.0.downsample.1.bias"),
        ("timm/resnet18", 20 * 6 + 2, "layer2.0.downsample.1.bias"),
    ],
)
def test_names_there_and_back(name, tensors, some):
    module = narrow(name)
    variables = variables_of(module)
    state = families.write(name, module, variables)
    assert len(state) == tensors
    assert some in state
    back = families.read(name, module, state)
    for part in ("params", "batch_stats"):
        flat = dict(_leaves(back[part]))
        for key, value in _leaves(variables[part]):
            np.testing.assert_array_equal(flat[key], value)


def _leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def test_other_stems_and_other_nets_are_refused_in_a_line():
    with pytest.raises(names.ConfigError, match=r"'timm/resnet50d' differs from"):
        families.create("timm/resnet50d", 10)
    with pytest.raises(names.ConfigError, match="unknown published net 'akamaster/r"):
        families.create("akamaster/resnet50", 10)
    module = narrow("timm/resnet18")
    state = {"conv1.0.weight": np.zeros((2, 3, 3, 3))}
    with pytest.raises(names.ConfigError, match="stem has three 3x3 convolutions"):
        families.read("timm/resnet18", module, state)
    module = narrow("akamaster/resnet20")
    state = families.write("akamaster/resnet20", module, variables_of(module))
    del state["layer3.2.bn2.bias"]
    with pytest.raises(ValueError, match=r"it lacks 'layer3.2.bn2.bias'"):
        families.read("akamaster/resnet20", module, state)


@needs("torch")
class TestWithTorch:
    """Against nets written in torch with the families' names."""

    @staticmethod
    def akamaster():
        """Option A with zeros on both sides of the channels that are kept."""
        import torch
        from torch.nn import functional

        from experiments.benchmark.peers import torch_nets

        class BothSides(torch.nn.Module):
            def __init__(self, width):
                super().__init__()
                self.each = width // 4

            def forward(self, x):
                pad = (0, 0, 0, 0, self.each, self.each)
                return functional.pad(x[:, :, ::2, ::2], pad)

        net = torch_nets.resnet(7, (3, 3, 3), WIDTHS, shortcut="A", cifar=True)
        for stage, width in ((2, WIDTHS[1]), (3, WIDTHS[2])):
            getattr(net, f"layer{stage}")[0].downsample = BothSides(width)
        net.linear = net.fc
        del net.fc
        return net

    @staticmethod
    def chenyaofo():
        from experiments.benchmark.peers import torch_nets

        return torch_nets.resnet(7, (3, 3, 3), WIDTHS, shortcut="B", cifar=True)

    @pytest.mark.parametrize(
        ("name", "peer"),
        [
            ("akamaster/resnet20", "akamaster"),
            ("chenyaofo/cifar10_resnet20", "chenyaofo"),
        ],
    )
    def test_logits_are_those_of_torch(self, name, peer):
        import jax
        import torch

        from tests.models import torch_weights

        net = torch_weights.randomize(getattr(self, peer)())
        module = narrow(name)
        images = np.asarray(drawn.images(2, 16, 16, 3))
        state = torch_weights.state_dict(net)
        variables = families.read(name, module, state)
        expected = torch_weights.logits(net, images)
        found = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, images)
        assert np.abs(expected).max() > 0.1
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()

        fresh = torch_weights.randomize(getattr(self, peer)(), seed=1)
        again = families.write(name, module, variables)
        fresh.load_state_dict({key: torch.tensor(t) for key, t in again.items()})
        back = torch_weights.logits(fresh, images)
        assert np.abs(back - expected).max() < 1e-5 * np.abs(expected).max()
