"""The independent check in torch: it resumes, and its nets are those of the study."""

import json

import jax
import numpy as np
import pytest

from cnn_jax import data, models
from tests.needs import needs

pytestmark = needs("torch")


@pytest.fixture
def check(monkeypatch):
    from tests.study import torch_degradation

    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (320, 32, 32, 3), np.uint8)
    arrays = data.Arrays(images, draw.integers(0, 10, 320).astype(np.int32))
    cifar = data.Dataset("cifar10", 10, arrays, arrays)
    monkeypatch.setattr(torch_degradation.data, "load", lambda *_, **__: cifar)
    return torch_degradation


def test_a_stopped_one_resumes(check, tmp_path):
    def last(name):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])

    flags = ["plain", "8", "--steps=4", "--evaluate_every=2", "--workdir"]
    check.main([*flags, str(tmp_path / "whole")])
    replaced = check.os.replace
    with pytest.MonkeyPatch.context() as patch:

        def replace_and_stop(source, target):
            replaced(source, target)
            raise KeyboardInterrupt

        patch.setattr(check.os, "replace", replace_and_stop)
        with pytest.raises(KeyboardInterrupt):
            check.main([*flags, str(tmp_path / "stopped")])
    check.main([*flags, str(tmp_path / "stopped")])
    assert last("stopped") == last("whole")
    assert last("whole")["step"] == 4
    assert 0 < last("whole")["clean_train_error"] <= 1


@pytest.mark.parametrize("family", ["plain", "residual"])
def test_parameters_are_those_of_the_study(check, family):
    shortcut = {"plain": "none", "residual": "A"}[family]
    module = models.create("cifar_resnet", 10, depth=20, shortcut=shortcut)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    variables = module.lazy_init(jax.random.key(0), images, train=False)
    ours = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    theirs = sum(leaf.numel() for leaf in check.network(family, 20).parameters())
    assert ours == theirs
