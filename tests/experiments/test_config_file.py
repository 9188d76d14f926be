"""Config files of the commands, and changes from the command line."""

import argparse

import pytest

from cnn_jax import names
from experiments import config_file, launch

RESNET = str(config_file.CONFIGS / "resnet_digits.py")


@pytest.mark.parametrize("name", [RESNET, "resnet_digits.py", "resnet_digits"])
def test_a_config_of_the_project_goes_by_its_name(name):
    assert config_file.load(name).model.name == "cifar_resnet"


def test_a_file_of_ones_own_is_preferred(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet_digits.py").write_text(
        "def get_config(word='none'):\n    return {'mine': word}\n"
    )
    assert config_file.load("resnet_digits.py").mine == "none"
    assert config_file.load("resnet_digits.py:deep").mine == "deep"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"file.py': the file has no function get_conf"),
        ("def get_config():\n    pass", r"must return a ConfigDict, got None"),
        ("def get_config(:", "file.py': SyntaxError: invalid syntax"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named"),
        ("def get_config():\n    return {}['x']", "KeyError: 'x'"),
        ("\0", "null bytes"),
        ("def get_config():\n    return {'a': {'0.1': {}}}", "ValueError: .* dots in"),
    ],
)
def test_what_a_file_does_wrong_is_a_line(text, message, tmp_path):
    (tmp_path / "file.py").write_text(text)
    with pytest.raises(names.ConfigError, match=message):
        config_file.load(str(tmp_path / "file.py"))


def test_words_of_the_command_line(capsys):
    words = ["--config", "x.py", "--config.a.b", "-1", "--config.c=(1, 2)", "rest"]
    words = [*words, "--config.a.b=last=2", "--config.KEY", "(0, 1)"]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    config_file.define(parser, "default.py", words)
    values, others = parser.parse_known_args(words)
    assert (values.config, others) == ("x.py", ["rest"])
    assert dict(values.overrides) == {"a.b": "last=2", "c": "(1, 2)", "KEY": "(0, 1)"}
    train = launch.command("", lambda parser: None, "resnet_digits")(lambda _: 0)
    for wrong in (["--config.a"], ["--config.a", "--workdir=x"]):
        assert train(wrong) == 2
        error = "error: argument --config.a: expected one argument\n"
        assert capsys.readouterr().err == error
