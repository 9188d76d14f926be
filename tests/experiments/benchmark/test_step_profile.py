"""The profile of a step finds every kind of operation and names it correctly."""

import os
import subprocess
import sys

import pytest

from cnn_jax.kernels import extension
from experiments.benchmark import step_profile

FORWARD, BACKWARD = "jit(f)/conv_general_dilated", "transpose(jvp)/conv_general_dilated"


@pytest.mark.parametrize(
    ("operation", "shape", "source", "kind"),
    [
        ("convolution.1", (32, 8, 8, 16), FORWARD, "convolution"),
        ("fusion", (32, 8, 8, 3), BACKWARD, "its gradient w.r.t. the images"),
        ("fusion", (3, 3, 32, 16), BACKWARD, "its gradient w.r.t. the kernel"),
        ("fusion", (), BACKWARD, "its gradient w.r.t. the kernel"),
        ("transpose_fusion", (32, 8), FORWARD, "layout changes for convolutions"),
        ("copy.3", (32, 8), "net/conv1/x", "layout changes for convolutions"),
        ("copy.3", (32, 8), "net/x", "other operations"),
        ("dot.3", (32, 8), "net/dot_general", "matrix product"),
        ("fusion", (8,), "net/bn2/x", "batch norm (and operations fused with it)"),
    ],
)
def test_operations_by_their_names(operation, shape, source, kind):
    assert step_profile.kind(operation, shape, source, "", 32) == kind
    gradient = step_profile.kind(operation, shape, source, "cnn_jax_kernel", 32)
    assert gradient == "its gradient w.r.t. the kernel"


def test_every_function_of_the_extension_has_a_kind():
    assert set(step_profile.EXTENSION) == set(extension.TARGETS)


def test_operations_are_found_in_a_programs_text():
    """With tuples as results; a loop's time is that of the operations in it."""
    text = """
  %while.5 = (s32[], f32[8]{0}) while(%tuple.3), condition=%c, body=%b
  %custom-call.2 = (f32[8,2]{1,0}, u8[4]{0}) custom-call(%p), \
custom_call_target="cnn_jax_largest", metadata={op_name="jit(f)/pool"}
  ROOT %fusion.1 = f32[3,3]{1,0} fusion(%a), metadata={op_name="jit(f)/call(x)/add"}
"""
    assert step_profile.OPERATION.findall(text) == [
        ("custom-call.2", "8,2", "jit(f)/pool", "cnn_jax_largest"),
        ("fusion.1", "3,3", "jit(f)/call(x)/add", ""),
    ]


@pytest.mark.slow
def test_the_kinds_of_a_residual_net():
    # As a user calls it: the tests' type checker refuses jax's array placeholders.
    command = [sys.executable, "-m", "experiments.benchmark", "profile"]
    command += ["--net=resnet8@16x16x3", "--batch=32"]
    with_xla = {**os.environ, "CNN_JAX_ONEDNN": "false"}
    out = subprocess.run(
        command, capture_output=True, text=True, check=True, env=with_xla
    ).stdout
    for name in (
        "%  convolution",
        "its gradient w.r.t. the images",
        "its gradient w.r.t. the kernel",
        "layout changes for convolutions",
        "batch norm",
    ):
        assert name in out
    shares = [
        float(line.split("ms")[1].split("%")[0])
        for line in out.splitlines()
        if "%" in line
    ]
    assert abs(sum(shares) - 100) < 1


def test_a_wrong_network_is_one_line(capsys):
    assert step_profile.main(["--net=resnet9"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
