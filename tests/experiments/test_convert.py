"""``python -m experiments.convert``."""

import re
import sys

import numpy as np
import pytest

import cnn_jax
from cnn_jax import models, names
from cnn_jax.analysis import exchange, published
from cnn_jax.models import families, torchvision, weights
from cnn_jax.models.blocks import BasicBlock
from experiments import convert, evaluate
from tests import tiny
from tests.models.test_families import TestWithTorch as Peers
from tests.needs import needs


@pytest.fixture
def narrow(monkeypatch):
    """resnet18 with few channels, so that the files are small."""
    fields = {"bottleneck_stride": "3x3", "widths": (2, 3, 4, 5)}
    model = {"name": "resnet18", **fields}
    entry = families.NETS["resnet18"]._replace(model=model)
    monkeypatch.setitem(families.NETS, "resnet18", entry)
    import jax
    import jax.numpy as jnp

    module = families.create("resnet18", num_classes=7)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes
    )
    return torchvision.to_state_dict(module, variables)


def test_there_and_back(tmp_path, narrow, capsys):
    source, ours, back = (str(tmp_path / f"{n}.safetensors") for n in "abc")
    weights.write_tensors(source, narrow)
    assert convert.main(["resnet18", source, ours]) == 0
    printed = capsys.readouterr().out
    assert "classes: 7" in printed
    assert "cnn_jax names" in printed
    assert "params/head/kernel" in weights.read_tensors(ours)
    assert convert.main(["resnet18", ours, back]) == 0
    assert "PyTorch names" in capsys.readouterr().out
    found = weights.read_tensors(back)
    assert set(found) == set(narrow)
    for name, value in narrow.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.fixture
def small_peers(monkeypatch):
    """akamaster's networks at a quarter of the width."""
    for depth in (20, 32):
        entry = families.NETS[f"akamaster/resnet{depth}"]
        model = {**entry.model, "widths": (4, 8, 16)}
        monkeypatch.setitem(
            families.NETS, f"akamaster/resnet{depth}", entry._replace(model=model)
        )


class Leaky(BasicBlock):
    """A user's block: basic but for its function."""

    def branch(self, x, train):
        return 0.5 * super().branch(x, train)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"depth": 32}, "unknown tensor 'batch_stats/stage1_block4/bn1/mean'"),
        ({"shortcut": "B"}, "unknown tensor 'batch_stats/stage2_block1/shortcut_bn/me"),
        ({"widths": (8, 16, 32)}, "'.*' should have shape .* got"),
        ({"name": "cifar_plain"}, "resnet20 has shortcut 'A', but this net 'none'"),
        (
            {"norm": {"name": "batch", "epsilon": 1e-3}},
            "epsilon 1e-05, but this net 0.001",
        ),
        ({"stochastic_depth": 0.5}, "has stochastic_depth 0.0, but this net 0.5"),
        ({"block": f"{__name__}:Leaky"}, "has basic blocks, but this net has .*Leaky"),
    ],
)
def test_variables_of_another_network_are_not_given_its_names(
    model, message, tmp_path, small_peers, capsys
):
    """Even if the published network's tensors are all there, as for a plain net."""
    section = {"name": "cifar_resnet", "depth": 20, "widths": (4, 8, 16), **model}
    module = models.create(num_classes=10, **section)
    source, target = (str(tmp_path / f"{n}.safetensors") for n in "ab")
    config = {**published.config_of("akamaster/resnet20"), "model": section}
    label = {"family": "residual", "depth": 20, "seed": 0, "step": 0}
    facts = published.facts_of("akamaster/resnet20", 10)
    variables = torchvision.zero_variables(module, 3)
    exchange.write(source, config, facts, variables, label)
    assert convert.main(["akamaster/resnet20", source, target]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1


def test_data_is_for_an_evaluation(tmp_path, narrow, capsys):
    source, target = str(tmp_path / "a.safetensors"), tmp_path / "b.safetensors"
    weights.write_tensors(source, narrow)
    assert convert.main(["resnet18", source, str(target), "--data_dir=DATA"]) == 2
    assert capsys.readouterr().err == "error: --data_dir needs --evaluate\n"
    assert not target.exists()


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(names.ConfigError, match=r"pip install -e '\.\[peer\]'"):
        weights.read_tensors(tmp_path / "a.pth")


def test_errors_are_one_line(tmp_path, narrow, capsys):
    source, target = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
    weights.write_tensors(source, narrow)
    assert convert.main(["vgg16", source, target]) == 2
    assert "not weights of vgg16: 'classifier.6.bias'" in capsys.readouterr().err
    del narrow["bn1.bias"]
    weights.write_tensors(source, narrow)
    assert convert.main(["resnet18", source, target]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(names.ConfigError, match="unknown published net 'resnet20'"):
        published.convert("resnet20", source, target)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config():\n    return None", "must return a ConfigDict, got None"),
        ("x = 1", "no function get_config()"),
        ("def get_config(:", "SyntaxError"),
        ("def get_config():\n    return {'families': {}}", "config describes a study"),
        ("def get_config():\n    return {'model': {}}", "config lacks"),
    ],
)
def test_configs_that_cannot_be_evaluated_are_one_line(
    text, message, tmp_path, narrow, capsys
):
    source, target = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
    weights.write_tensors(source, narrow)
    (tmp_path / "config.py").write_text(text)
    evaluate = f"--evaluate={tmp_path / 'config.py'}"
    assert convert.main(["resnet18", source, target, evaluate]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("target", ["taken.safetensors", "/proc/no/b.safetensors"])
def test_targets_that_cannot_be_written_are_one_line(tmp_path, narrow, capsys, target):
    (tmp_path / "taken.safetensors").mkdir()
    source = str(tmp_path / "a.safetensors")
    weights.write_tensors(source, narrow)
    assert convert.main(["resnet18", source, str(tmp_path / target)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_converted_weights_are_evaluated(tmp_path, narrow, capsys):
    """Both forms of the same weights have the same error on a config's test set."""
    config = tmp_path / "config.py"
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "from tests import tiny\n"
        "def get_config():\n"
        "    return ConfigDict(tiny.config(preprocess={'size': 32}))\n"
    )
    narrow["conv1.weight"] = narrow["conv1.weight"][:, :1]
    narrow["fc.weight"], narrow["fc.bias"] = narrow["fc.weight"][:3], np.zeros(3)
    for key in narrow:
        if key.endswith("running_var"):
            narrow[key] = np.abs(narrow[key]) + 1
    narrow["fc.bias"] = np.array([0.0, 1e6, 0.0], np.float32)  # always class 1
    source, ours, back = (str(tmp_path / f"{n}.safetensors") for n in "abc")
    weights.write_tensors(source, narrow)
    found = []
    for pair in ((source, ours), (ours, back)):
        arguments = ["resnet18", *pair, "--evaluate", str(config)]
        assert convert.main(arguments) == 0
        printed = capsys.readouterr().out
        found.append(
            [line for line in printed.splitlines() if line.lstrip()[:5] == "test_"]
        )
    assert found[0] == found[1]
    labels = tiny.noise(40).test.labels
    assert f"test_error: {100 * (labels != 1).mean():.2f} %" in "".join(found[0])

    narrow["fc.weight"], narrow["fc.bias"] = np.zeros((4, 5)), np.zeros(4)
    weights.write_tensors(source, narrow)
    arguments = ["resnet18", source, ours, "--evaluate", str(config)]
    assert convert.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


@needs("torch")
@pytest.mark.parametrize(
    ("name", "peer", "widths"),
    [
        ("akamaster/resnet20", Peers.akamaster, (4, 8, 16)),
        pytest.param(
            *("chenyaofo/cifar10_resnet20", Peers.chenyaofo, (4, 8, 16)),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_published_weights_have_their_error_on_the_right_pictures(
    name, peer, widths, tmp_path, capsys, monkeypatch
):
    """With the publisher's preprocessing, which the converted file contains."""
    import torch
    from PIL import Image

    from tests.models import torch_weights

    entry = families.NETS[name]
    model = {**entry.model, "widths": widths}
    monkeypatch.setitem(families.NETS, name, entry._replace(model=model))
    monkeypatch.setattr(published, "CIFAR10", tuple("abcdefg"))
    net = torch_weights.randomize(peer())
    source, target = str(tmp_path / "theirs.pth"), str(tmp_path / "ours.safetensors")
    wrapped = {f"module.{key}": value for key, value in net.state_dict().items()}
    torch.save({"state_dict": wrapped, "best_prec1": 91.7}, source)
    assert convert.main([name, source, target]) == 0

    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    mean, std = (np.asarray(value) for value in (entry.mean, entry.std))
    logits = torch_weights.logits(net, ((images / 255 - mean) / std).astype("f"))
    run = cnn_jax.load_run(target)
    np.testing.assert_allclose(run.predict(images), logits, 1e-3, 1e-3)
    labels = logits.argmax(1)
    labels[:4] = (labels[:4] + 1) % 7  # 4 of 9 are then wrong
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "pictures" / "abcdefg"[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    capsys.readouterr()
    assert evaluate.main([target, f"--folder={tmp_path / 'pictures'}"]) == 0
    assert "error: 44.44 %" in capsys.readouterr().out
