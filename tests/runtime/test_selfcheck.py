"""A backend that computes wrongly is detected before training starts."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from cnn_jax.runtime import selfcheck
from cnn_jax.runtime.backend import FLAG
from cnn_jax.runtime.selfcheck import WrongBackend
from experiments import train
from tests.needs import needs

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_this_backend_is_right():
    selfcheck.check_backend()


def half_too_large(function, name):
    """A convolution with a correct output and a wrong slice of one gradient."""

    @jax.custom_vjp
    def wrong(images, kernel):
        return function(images, kernel)

    def forward(images, kernel):
        return jax.vjp(function, images, kernel)

    def backward(pull, gradient):
        found = dict(zip(("images", "kernel"), pull(gradient), strict=True))
        found[name] = found[name].at[..., -1].multiply(1.5)
        return found["images"], found["kernel"]

    wrong.defvjp(forward, backward)
    return wrong


@pytest.mark.parametrize("name", ["images", "kernel"])
def test_a_wrong_gradient_of_a_convolution_is_noticed(name, monkeypatch):
    right = selfcheck.conv_general_dilated

    def convolution(images, kernel, *geometry, **layout):
        def bound(images, kernel):
            return right(images, kernel, *geometry, **layout)

        return half_too_large(bound, name)(images, kernel)

    monkeypatch.setattr(selfcheck, "conv_general_dilated", convolution)
    with pytest.raises(WrongBackend, match="gradient of a convolution") as error:
        selfcheck.check_backend()
    assert "\n" not in str(error.value)


def test_a_command_stops_with_the_advice(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("jax.numpy.eye", lambda size: np.ones((size, size), "f"))
    arguments = [
        f"--config={ROOT}/configs/resnet_digits.py",
        "--config.model.depth=8",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert train.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the cpu backend of jaxlib")
    assert "XLA_FLAGS" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@needs("a faulty jaxlib")
def test_the_known_fault_is_noticed_where_the_user_asks_for_it():
    """With reductions allowed in fusions, this jaxlib does compute wrongly."""
    code = "import cnn_jax.runtime.selfcheck; cnn_jax.runtime.selfcheck.check_backend()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": f"{FLAG}=reduce"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "WrongBackend: the cpu backend" in done.stderr
    assert "computes a sum of squares incorrectly" in done.stderr
