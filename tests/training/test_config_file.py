"""Values of a config that are changed from the command line."""

import pytest
from ml_collections import ConfigDict

from cnn_jax import names
from cnn_jax.training import config as run_config
from cnn_jax.training import config_file
from tests import tiny


def changed(**overrides):
    config = ConfigDict(tiny.CONFIG)
    keys = {key.replace("__", "."): text for key, text in overrides.items()}
    config_file.override(config, keys)
    return config


def test_values_are_read_as_the_old_ones_are():
    found = changed(
        steps="7",
        model__widths="2, 3,4",
        schedule__rates="(1,)",
        optimizer__momentum="1e-3",
        augment__flip="false",
        dataset__name="123",
        model__preactivation="True",
        model__block="my.blocks:Block",
        optimizer__nesterov="1",
    )
    assert (found.steps, found.model.widths) == (7, (2, 3, 4))
    assert found.schedule.rates == (1,)
    assert (found.optimizer.momentum, found.augment.flip) == (1e-3, False)
    assert found.dataset.name == "123"
    assert found.model.preactivation is True
    assert found.model.block == "my.blocks:Block"
    # the value of a key that the file lacks is parsed as a literal
    assert found.optimizer.nesterov == 1


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("steps", "many", "--config.steps=many: "),
        ("optimizer.momentum", "much", "could not convert"),
        (
            "schedule.rates",
            "3",
            r"write '\(3,\)' for the single value 3, '\(0",
        ),
        ("optimizer", "sgd", "expected a section"),
        ("modle.depth", "8", "unknown config key 'modle' .did you mean 'model'"),
        ("steps.more", "8", "'steps' is not a section"),
    ],
)
def test_values_of_another_type_are_refused(key, text, message):
    config = ConfigDict(tiny.CONFIG)
    with pytest.raises(names.ConfigError, match=message):
        config_file.override(config, {key: text})


def test_a_section_is_replaced_as_a_whole():
    found = changed(optimizer="{'name': 'adamw', 'b1': 0.8}")
    assert found.optimizer.to_dict() == {"name": "adamw", "b1": 0.8}


def test_a_section_replaces_a_name():
    config = ConfigDict({"model": {"block": "basic"}})
    block = "{'name': 'my.blocks:Block', 'start': 0.2}"
    config_file.override(config, {"model.block": block})
    assert config.model.block.to_dict() == {"name": "my.blocks:Block", "start": 0.2}
    with pytest.raises(names.ConfigError, match="steps"):
        config_file.override(ConfigDict({"steps": 3}), {"steps": "{'name': 'a'}"})


COSINE = {"rate": 0.1, "steps": 9}


@pytest.mark.parametrize(
    ("section", "name", "fields", "left"),
    [
        ("optimizer", "adamw", {"b1": "0.8"}, {"weight_decay": 1e-4, "b1": 0.8}),
        (
            "schedule",
            "cosine",
            {"rate": "0.1", "steps": "9"},
            {"rate": 0.1, "steps": 9},
        ),
        ("model", "cifar_plain", {}, {"depth": 8, "widths": (2, 2, 2)}),
        ("model", "lenet5", {}, {}),
        ("augment", "none", {}, {}),
        ("dataset", "digits", {}, {}),
    ],
)
def test_another_name_leaves_out_what_it_does_not_take(
    section, name, fields, left, capsys
):
    given = {f"{section}__{key}": text for key, text in fields.items()}
    found = changed(**given, **{f"{section}__name": name})  # fields come first
    assert found[section].to_dict() == {"name": name, **left}
    run_config.check(found)
    error = capsys.readouterr().err
    lost = set(tiny.CONFIG[section]) - {"name"} - set(left)
    assert error.count("\n") == bool(lost)
    for key in lost:
        assert key in error


def test_the_same_name_or_an_unknown_one_leaves_out_nothing(capsys):
    fields = set(tiny.CONFIG["optimizer"])
    assert set(changed(optimizer__name="sgd").optimizer) == fields
    assert set(changed(optimizer__name="nosuch").optimizer) == fields
    assert capsys.readouterr().err == ""
