"""Weight files."""

import argparse
import json
import struct
import sys

import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.models import weights
from tests.needs import needs

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.num_batches_tracked": np.int64(3),
}


def test_safetensors_are_read_back(tmp_path):
    path = tmp_path / "deep" / "w.safetensors"
    path.parent.mkdir()
    (path.parent / "w.part").write_text("of someone else")
    # A transposed view is not contiguous; the file must hold the transposed array.
    weights.write_tensors(path, {**TENSORS, "t": TENSORS["a.weight"].T})
    found = weights.read_tensors(path)
    np.testing.assert_array_equal(found["t"], TENSORS["a.weight"].T)
    np.testing.assert_array_equal(found["a.weight"], TENSORS["a.weight"])
    assert found["a.num_batches_tracked"] == 3
    assert (path.parent / "w.part").read_text() == "of someone else"
    assert len(list(path.parent.iterdir())) == 2


def test_variables_have_flat_names():
    variables = {"params": {"stem": {"kernel": np.ones((2, 2))}}, "batch_stats": {}}
    flat = weights.flatten({"params": variables["params"]})
    assert set(flat) == {"params/stem/kernel"}
    assert weights.unflatten(flat)["params"]["stem"]["kernel"].shape == (2, 2)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(names.ConfigError, match=r"expected a .safetensors"):
        weights.read_tensors(tmp_path / "w.npz")
    with pytest.raises(names.ConfigError, match=r"w.safetensors': the file does not"):
        weights.read_tensors(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(names.ConfigError, match=r"not a safetensors file"):
        weights.read_tensors(tmp_path / "w.safetensors")
    with pytest.raises(names.ConfigError, match=r"expected a .safetensors file"):
        weights.write_tensors(tmp_path / "w.pth", TENSORS)


def test_a_type_that_numpy_lacks_is_refused_in_a_line(tmp_path):
    tensor = {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}
    head = json.dumps({"w": tensor}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))
    with pytest.raises(names.ConfigError, match=r"unsupported tensor type .*float8"):
        weights.read_tensors(path)


def test_torch_files_ask_for_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(names.ConfigError, match=r"pip install -e '\.\[peer\]'"):
        weights.read_tensors(tmp_path / "w.pth")


@needs("torch")
def test_torch_files_are_read_where_torch_is(tmp_path):
    import torch

    state = {"w": torch.arange(3.0, dtype=torch.bfloat16), "n": torch.tensor(3)}
    torch.save(state, tmp_path / "w.pth")
    found = weights.read_tensors(tmp_path / "w.pth")
    np.testing.assert_array_equal(found["w"], np.array([0, 1, 2], np.float32))
    assert found["w"].dtype == np.float32
    assert found["n"] == 3


def checkpoints(torch):
    """The objects that training scripts save, by name."""
    state = {"conv.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}
    wrapped = {f"module._orig_mod.{name}": value for name, value in state.items()}
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1}]}
    flags = argparse.Namespace(arch="resnet", lr=0.1)
    return state, {
        "plain.th": state,
        "parallel.pth.tar": {"epoch": 3, "state_dict": wrapped, "best": 0.5},
        "compiled.bin": {f"_orig_mod.{name}": value for name, value in state.items()},
        "lightning.ckpt": {
            "epoch": 1,
            "state_dict": {f"model.{name}": value for name, value in state.items()},
            "optimizer_states": [optimizer],
            "loops": {},
        },
        "flags.pt": {"model": state, "optimizer": optimizer, "args": flags},
    }


@needs("torch")
def test_checkpoints_of_training_scripts_are_read(tmp_path):
    import torch

    state, files = checkpoints(torch)
    for name, content in files.items():
        torch.save(content, tmp_path / name)
        found = weights.read_tensors(tmp_path / name)
        assert list(found) == list(state), name
        np.testing.assert_array_equal(found["conv.weight"], state["conv.weight"])
    weights.write_tensors(tmp_path / "a.safetensors", {"module.w": np.ones(2)})
    assert list(weights.read_tensors(tmp_path / "a.safetensors")) == ["w"]


class Network:
    """A pickled model, which needs its code to be loaded."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda _: Network(), r"contains \S+Network, .*torch.save\(model"),
        (lambda state: {"a": state, "b": state}, r"found several \(a, b\)"),
        (lambda state: {"epoch": 3, "model": {}}, r"found none"),
        (lambda state: [1, 2], r"found none"),
    ],
)
@needs("torch")
def test_what_torch_saved_and_is_no_state_dict(content, message, tmp_path):
    import torch

    torch.save(content({"w": torch.ones(2)}), tmp_path / "w.pth")
    with pytest.raises(names.ConfigError, match=message) as caught:
        weights.read_tensors(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[: len(whole) // 2], "damaged, or not a torch file"),
        (lambda whole: b"", "damaged, or not a torch file"),
        (lambda whole: b"\n<!DOCTYPE html><html>404</html>", "the file is a web page"),
        (
            lambda whole: b"version https://git-lfs.github.com",
            "damaged, or not a torch file",
        ),
    ],
)
@needs("torch")
def test_damaged_files_of_torch_are_a_line(damage, message, tmp_path):
    import torch

    path = tmp_path / "w.pth"
    torch.save({"w": torch.ones(2000)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(names.ConfigError, match=message) as caught:
        weights.read_tensors(path)
    assert "\n" not in str(caught.value)


def test_places_that_cannot_be_written_are_a_line(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(names.ConfigError, match="this is a directory"):
        weights.write_tensors(tmp_path / "w.safetensors", TENSORS)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", "/proc/nowhere"):
        with pytest.raises(names.ConfigError, match="cannot be written"):
            weights.write_tensors(f"{place}/w.safetensors", TENSORS)
    assert not list(tmp_path.rglob(".*"))
