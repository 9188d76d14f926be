"""The benchmark times the same net in every framework; its results are correct."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from cnn_jax.models.summary import summarize
from experiments.benchmark import __main__ as command
from experiments.benchmark import case, contender, rounds, steps
from experiments.benchmark.case import Case, parse
from experiments.benchmark.peers import NoPeer
from tests.needs import needs

NARROW = {
    "residual": ({"name": "cifar_resnet", "depth": 8, "widths": (2, 3, 4)}, 8, 3),
    "lenet5": ({"name": "lenet5"}, 32, 1),
    "lenet5_modern": ({"name": "lenet5_modern"}, 32, 1),
    "vgg": (
        {
            "name": "vgg11",
            "widths": (2, 3, 4, 5, 6),
            "hidden": (7, 8),
            "image_size": 32,
            "dropout": 0.0,
            "initializer": "he",
        },
        32,
        3,
    ),
}


def case_of(model, size, channels, **changes):
    fields = {"batch": 4, "dtype": "float32", "devices": 1, **changes}
    return Case("narrow", model, (size, size, channels), 10, **fields)


def test_names_of_nets():
    deep = parse("resnet56@8x8x1", 128, "float32", 1, 1, {})
    assert deep.model == {"name": "cifar_resnet", "depth": 56}
    assert (deep.image, deep.classes) == ((8, 8, 1), 10)
    assert parse("plain20", 1, "float32", 1, 1, {}).model["name"] == "cifar_plain"
    assert parse("resnet18:16", 128, "float32", 1, 1, {}).batch == 16
    large = parse("resnet50", 1, "bfloat16", 1, 1, {})
    assert (large.image, large.classes) == ((224, 224, 3), 1000)
    small = parse("vgg11@32x32x3", 1, "float32", 1, 1, {"batch_norm": True, "depth": 3})
    assert small.module().image_size == 32
    assert small.module().batch_norm
    assert small.module().hidden == (512, 512)
    assert parse("vgg11", 1, "float32", 1, 1, {}).module().hidden == (4096, 4096)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--nets=resnext", "unknown net 'resnext'"),
        ("--nets=resnet21", "depth 21 is not 6n+2"),
        ("--nets=lenet5@28x28x1", "LeNet5 expects images of 32 x 32"),
        ("--nets=lenet5@28", "lenet5@32x32x3"),
        ("--dtypes=float16", "must be one of 'float32', 'bfloat16'"),
        ("--peer=keras", "choices: torch, torch.compile, flax"),
        ("--batches=many", "'many' is not a whole number"),
        ("--batches=0", "--batches: 0 is less than 1"),
        ("--steps_per_execution=0", "--steps_per_execution: 0 is less than 1"),
        ("--devices=3", "batch 128 is not divisible by 3"),
        ("--devices=64", "devices 64: this machine has 8 cpu device(s)"),
        ("--field=deepth=3", "no selected net has a field 'deepth'"),
        ("--field=depth", "--field: expected KEY=VALUE, got 'depth'"),
        ("--rounds=0", "--rounds: 0 is less than 1"),
        ("--nets=lenet5:3,lenet5:0", "batch 0 is not divisible by 1"),
        ("--json=/proc/nowhere/speed.json", "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(flag, message, capsys, monkeypatch):
    monkeypatch.setattr(rounds, "machine", lambda: MACHINE)
    assert command.main(["--nets=lenet5", flag]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


MACHINE = rounds.Machine("cpu", "cpu", 8, 2, "onednn", 0.0)


def test_subjects(capsys):
    assert command.main(["--help"]) == 0
    assert "python -m experiments.benchmark [SUBJECT]" in capsys.readouterr().out
    assert command.main(["compile", "--help"]) == 0
    assert "--depths" in capsys.readouterr().out
    assert command.main(["compiled", "--depths=8"]) == 2
    error = capsys.readouterr().err
    assert "invalid choice: 'compiled'" in error
    assert error.count("\n") == 1
    assert command.main(["compile", "--depths=21"]) == 2
    assert "depth 21 is not 6n+2" in capsys.readouterr().err


@pytest.mark.parametrize(("load", "busy"), [(1.0, False), (1.1, True)])
def test_a_case_is_measured_as_asked_and_a_busy_machine_named(
    load, busy, capsys, monkeypatch
):
    asked, values = [], {"seconds": [0.5], "compile_seconds": 1.0, "peak_rates": [1e9]}

    def measure(*given):
        asked.append(given)
        return [rounds.Measurement("cnn_jax", **values)]

    monkeypatch.setattr(rounds, "measure", measure)
    machine = dataclasses.replace(MACHINE, load=load)
    monkeypatch.setattr(rounds, "machine", lambda: machine)
    assert command.main(["--nets=lenet5:8", "--rounds=3", "--seconds=2"]) == 0
    [(one, peers, count, seconds)] = asked
    assert (one.net, one.batch, one.platform) == ("lenet5", 8, "cpu")
    assert (peers, count, seconds) == ([], 3, 2.0)
    assert ("the machine is busy" in capsys.readouterr().err) == busy


def test_without_torch_it_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: None)
    assert command.main(["--nets=lenet5", "--peer=torch"]) == 2
    assert "pip install -e '.[peer]'" in capsys.readouterr().err


def test_rows_hold_medians_ratios_and_rates():
    one = case_of(*NARROW["lenet5"])
    summary = summarize(one.module(), one.image)
    ours = rounds.Measurement(
        "cnn_jax",
        seconds=[0.1, 0.2, 0.4],
        compile_seconds=3.0,
        memory=5,
        peak_rates=[1e9, 2e9],
    )
    torch = rounds.Measurement("torch", seconds=[0.2, 0.8, 0.2], compile_seconds=1.0)
    absent = rounds.Measurement("flax", reason="no such net")
    first, second, third = steps.step_rows(one, [ours, torch, absent])
    # for each of 4 images: 2 operations per MAC, forward and twice that backward
    rate = 6 * summary.macs * 4 / 0.2
    assert first["step"] == 0.2
    assert first["step_range"] == [0.1, 0.4]
    assert first["images_per_second"] == pytest.approx(20)
    assert first["flops"] == pytest.approx(rate)
    assert first["share_of_peak"] == pytest.approx(rate / 2e9)
    assert (first["compile"], first["ratio"]) == (3.0, None)
    assert second["ratio"] == pytest.approx(1.0)
    assert second["ratio_range"] == [pytest.approx(0.5), pytest.approx(4.0)]
    assert second["compile"] is None
    assert (third["reason"], third["step"]) == ("no such net", None)


@pytest.mark.parametrize(("backend", "together"), [("cpu", 1), ("gpu", 2)])
def test_operations_of_products_over_the_shortest_time(backend, together, monkeypatch):
    def repeat(once, repeat, number):
        once()
        return [0.5, 0.25, 1.0]

    monkeypatch.setattr(contender.jax, "default_backend", lambda: backend)
    monkeypatch.setattr(contender.timeit, "repeat", repeat)
    rate = contender.peak_rate("float32", devices=2, side=64)
    assert rate == 2 * 64**3 / 0.25 * together


def replaced(ours, variables):
    """This package's contender, continuing from other weights."""
    state = ours.program.initial_state(0)
    assert jax.tree.map(np.shape, state.params) == jax.tree.map(
        np.shape, variables["params"]
    )
    ours.state = ours.program.place(
        state.replace(
            params=variables["params"], batch_stats=variables.get("batch_stats", {})
        )
    )
    return ours


def torch_variables(torch_net, one):
    """Weights of a torch contender under this package's names."""
    from tests.models import torch_weights

    torch_weights.randomize(torch_net)
    images, _ = one.arrays()
    layers = [layer.name for layer in summarize(one.module(), one.image).layers]
    if "lenet5" not in one.model["name"]:
        variables = torch_weights.variables_of(torch_net, images, layers)
    else:
        variables = torch_weights.lenet_variables_of(torch_net)
    torch_net.train()
    # torch changes its weights in place
    return jax.tree.map(np.array, variables)


@pytest.mark.parametrize(
    "name",
    [
        "lenet5_modern",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in NARROW
            if name != "lenet5_modern"
        ),
    ],
)
@needs("torch")
def test_contenders_learn_the_same(name, monkeypatch):
    """Three steps from the same weights: forward, backward and update agree."""
    from experiments.benchmark.peers import flax_training, torch_training

    for module in (case, flax_training, torch_training):
        # Large enough to change the loss.
        monkeypatch.setattr(module, "RATE", 0.01)
        monkeypatch.setattr(module, "WEIGHT_DECAY", 0.5)
    Torch, Flax = torch_training.Torch, flax_training.Flax
    one = case_of(*NARROW[name])
    torch, flax, ours = Torch(one), Flax(one), contender.CnnJax(one)
    assert torch.parameters == flax.parameters == ours.parameters
    variables = torch_variables(torch.net, one)
    params = jax.tree.map(jax.numpy.asarray, variables["params"])
    flax.state = flax.state.replace(params=params)
    replaced(ours, variables)
    losses = {peer: [peer.run(1) for _ in range(3)] for peer in (ours, torch, flax)}
    expected = losses.pop(ours)
    assert abs(expected[2] - expected[0]) > 1e-3 * expected[0]
    for found in losses.values():
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
# torch warns so on Python 3.13.0
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")
@needs("torch")
def test_compiled_torch_computes_what_torch_does(monkeypatch):
    import functools

    import torch

    from experiments.benchmark.peers.torch_training import CompiledTorch, Torch

    eager = functools.partial(torch.compile, backend="eager")  # no C++ compiler
    monkeypatch.setattr(torch, "compile", eager)
    for dtype in ("float32", "bfloat16"):
        one = case_of(*NARROW["residual"], dtype=dtype)
        peers = Torch(one), CompiledTorch(one)
        losses = [[peer.run(1) for _ in range(2)] for peer in peers]
        np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"devices": 2}, "one device"), ({"platform": "gpu"}, "no access to the GPU")],
)
@needs("torch")
def test_torch_says_what_it_cannot_do(change, message, monkeypatch):
    import torch

    from experiments.benchmark.peers.torch_training import Torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoPeer, match=message):
        Torch(case_of(*NARROW["residual"], **change))


@needs("torch")
def test_branches_that_are_left_out_are_not_compared_with_whole_nets():
    from experiments.benchmark.peers import torch_nets

    module = parse("resnet20", 1, "float32", 1, 1, {"stochastic_depth": 0.5}).module()
    with pytest.raises(NoPeer, match="this ResNet"):
        torch_nets.twin_of(module, 3)


@pytest.mark.slow
@needs("torch")
def test_the_command_measures_and_writes(tmp_path, capsys):
    path = tmp_path / "new" / "speed.json"
    status = command.main(
        [
            "--nets=lenet5_modern",
            "--batches=2",
            "--steps_per_execution=2",
            "--peer=torch,flax",
            "--rounds=2",
            "--seconds=0",
            f"--json={path}",
        ]
    )
    assert status == 0
    found = json.loads(path.read_text())
    assert found["machine"]["platform"] == "cpu"
    rows = {row["contender"]: row for row in found["steps"]}
    assert list(rows) == ["cnn_jax", "torch", "flax"]
    for row in found["steps"]:
        assert (row["reason"], row["parameters"]) == ("", 61706)
        assert row["step"] > 0
        assert row["memory"] > 2**20
        assert row["share_of_peak"] > 0
    low, high = rows["torch"]["ratio_range"]
    assert 0 < low <= rows["torch"]["ratio"] <= high
    assert "lenet5_modern" in capsys.readouterr().out


@pytest.mark.slow
def test_compiling_is_timed_by_stage(tmp_path, capsys):
    path = tmp_path / "compile.json"
    given = ["--depths=8", "--batches=2", "--field=widths=(2,2,2)", f"--json={path}"]
    assert command.main(["compile", *given]) == 0
    (row,) = json.loads(path.read_text())["compilations"]
    assert row["model"]["widths"] == [2, 2, 2]
    assert min(row[key] for key in ("trace", "lower", "compile", "bytes")) > 0
    out = capsys.readouterr().out
    assert "resnet8@32x32x3" in out
    assert "widths=(2, 2, 2)" in out
