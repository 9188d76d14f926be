"""Weights in files."""

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
    # A transposed view is not contiguous; the file must hold what it shows.
    weights.write_tensors(path, {**TENSORS, "t": TENSORS["a.weight"].T})
    found = weights.read_tensors(path)
    np.testing.assert_array_equal(found["t"], TENSORS["a.weight"].T)
    np.testing.assert_array_equal(found["a.weight"], TENSORS["a.weight"])
    assert found["a.num_batches_tracked"] == 3
    assert [entry.name for entry in path.parent.iterdir()] == ["w.safetensors"]


def test_variables_have_flat_names():
    variables = {"params": {"stem": {"kernel": np.ones((2, 2))}}, "batch_stats": {}}
    flat = weights.flatten({"params": variables["params"]})
    assert set(flat) == {"params/stem/kernel"}
    assert weights.unflatten(flat)["params"]["stem"]["kernel"].shape == (2, 2)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(names.ConfigError, match=r"expected a .safetensors, .pt or"):
        weights.read_tensors(tmp_path / "w.npz")
    with pytest.raises(names.ConfigError, match=r"w.safetensors': no such file"):
        weights.read_tensors(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(names.ConfigError, match=r"not a safetensors file"):
        weights.read_tensors(tmp_path / "w.safetensors")
    with pytest.raises(names.ConfigError, match=r"expected a .safetensors file"):
        weights.write_tensors(tmp_path / "w.pth", TENSORS)


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
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    with pytest.raises(names.ConfigError, match="expected a state_dict"):
        weights.read_tensors(tmp_path / "w.pt")
