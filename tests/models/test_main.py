"""``python -m cnn_jax.models``."""

import flax.linen as nn
import pytest

from cnn_jax import models, names
from cnn_jax.models import __main__ as command


def rows(capsys):
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: line.split() for line in lines if line.strip()}


def test_table_has_a_row_for_every_net(capsys, monkeypatch):
    few = {name: models.NETS[name] for name in ("lenet5", "vgg16", "plain18")}
    monkeypatch.setattr(models, "NETS", few)
    command.main([])
    found = rows(capsys)
    assert set(few) < set(found)
    head = ["network", "input", "weight", "layers", "parameters", "MACs"]
    assert found["network"] == head
    assert found["vgg16"][-3:] == ["16", "138,357,544", "15,470,264,320"]
    assert " ".join(found["lenet5"][1:6]) == "32 x 32 x 1"


def test_layers_of_one_net_and_a_field(capsys):
    command.main(["cifar_resnet", "--depth=8", "--widths=(4, 8, 16)", "--shortcut=B"])
    found = rows(capsys)
    assert found["stem_conv"][-2:] == ["108", f"{108 * 32 * 32:,}"]
    assert found["stage2_block1/shortcut_conv"][-2] == "32"
    assert found["layer"] == ["layer", "kind", "output", "parameters", "MACs"]
    size = {"depth": 8, "widths": (4, 8, 16), "shortcut": "B"}
    whole = command.summary_of("cifar_resnet", size)
    assert " ".join(found["8"][:8]) == "8 weight layers input 32 x 32 x"
    assert found["8"][-2:] == [f"{whole.parameters:,}", f"{whole.macs:,}"]


def test_task_by_flags():
    found = command.summary_of(
        "vgg11", {"image_size": 32, "channels": 1, "num_classes": 7, "hidden": ()}
    )
    assert found.input == (32, 32, 1)
    assert found.layers[-1].output == (7,)
    assert command.summary_of("nin_cifar", {"image_size": 16}).input == (16, 16, 3)


class Pair(nn.Module):
    """A network with two outputs and products of its own."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1], 2))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1)), x @ scale


def test_an_output_need_not_be_one_array(capsys):
    task = {"image_size": 4, "channels": 1, "num_classes": 3}
    found = command.summary_of(f"{__name__}:Pair", task)
    assert (found.parameters, found.macs) == (16 * 3 + 3 + 2, 16 * 3 + 16 * 2)
    command.main(["gtn", "--image_size=32", "--channels=1", "--num_classes=10"])
    assert rows(capsys)["recognizer/C1"][-2] == "156"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vgg"], "unknown model 'vgg'"),
        (["--depth=3"], "expected a network's name"),
        (["lenet5", "depth=3"], "expected --field=value, got 'depth=3'"),
        (["lenet5", "--c4=dense"], "unknown field of model 'lenet5' 'c4'"),
        (["lenet5", "--image_size=big"], "image_size must be a positive int"),
        (["cifar_resnet", "--depth=9"], "depth 9 is not 6n"),
        (["cifar_resnet", "--norm=foo"], "unknown norm 'foo'; choices: batch"),
    ],
)
def test_bad_words_are_one_line(words, message):
    with pytest.raises(names.ConfigError, match=message):
        command.main(words)


def test_size_that_the_net_refuses():
    with pytest.raises(ValueError, match="LeNet5 expects images of 32 x 32 pixels"):
        command.main(["lenet5", "--image_size=28"])
