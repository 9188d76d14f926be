"""Checkpoints: atomic, checksummed, and the one before when one is damaged."""

import json

import numpy as np
import pytest

from cnn_jax.train import checkpoint
from cnn_jax.train.checkpoint import CheckpointError


def state(value):
    return {"w": np.full(5, value, np.float32), "step": np.int32(value)}


@pytest.fixture
def directory(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / "checkpoints", step, state(step), {"note": step})
    return tmp_path / "checkpoints"


def test_the_newest_is_restored_and_two_are_kept(directory):
    found, notes, complaints = checkpoint.restore(directory, state(0))
    assert found["w"].tolist() == [3.0] * 5
    assert notes == {"note": 3}
    assert complaints == []
    names = [path.name for path in checkpoint.steps(directory)]
    assert names == ["step_000000002.ckpt", "step_000000003.ckpt"]


def test_nothing_there_is_none(tmp_path):
    assert checkpoint.restore(tmp_path, state(0)) is None


def flip(path, where):
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: flip(path, -1),
        lambda path: flip(path, -30),
        lambda path: flip(path, path.read_bytes().index(b"\n") + 1),
        lambda path: flip(path, 0),
    ],
    ids=["empty", "short", "header only", "last bit", "array", "payload", "header"],
)
def test_a_damaged_one_is_named_and_the_one_before_used(directory, damage):
    damage(directory / "step_000000003.ckpt")
    found, _, complaints = checkpoint.restore(directory, state(0))
    assert found["w"].tolist() == [2.0] * 5
    assert len(complaints) == 1
    assert "step_000000003.ckpt: damaged" in complaints[0]
    # set aside, it does not push a good one out
    checkpoint.save(directory, 4, state(4), {})
    names = [path.name for path in checkpoint.steps(directory)]
    assert names == ["step_000000002.ckpt", "step_000000004.ckpt"]
    assert (directory / "step_000000003.ckpt.damaged").exists()


def test_all_damaged_is_an_error_never_a_fresh_start(directory):
    for path in checkpoint.steps(directory):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no usable checkpoint.*step_000000003"):
        checkpoint.restore(directory, state(0))


def test_a_half_written_file_does_not_count(directory):
    (directory / ".step_000000009.ckpt.123.tmp").write_bytes(b"half")
    (directory / "step_000000009").mkdir()
    found, _, _ = checkpoint.restore(directory, state(0))
    assert int(found["step"]) == 3


def test_a_full_disk_keeps_the_old_ones(directory, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(directory, 4, state(4), {})
    monkeypatch.undo()
    found, _, complaints = checkpoint.restore(directory, state(0))
    assert int(found["step"]) == 3
    assert complaints == []
    assert not list(directory.glob("*.tmp"))


def test_another_format_is_refused_with_a_word(directory):
    path = directory / "step_000000003.ckpt"
    line, _, rest = path.read_bytes().partition(b"\n")
    header = {**json.loads(line), "format": 99}
    path.write_bytes(json.dumps(header).encode() + b"\n" + rest)
    with pytest.raises(CheckpointError, match=r"format 99, this version reads"):
        checkpoint.read(path, state(0))


def test_the_state_of_another_net_is_refused(directory):
    with pytest.raises(CheckpointError, match="another network"):
        checkpoint.read(directory / "step_000000003.ckpt", {"v": np.zeros(5)})
