"""Checkpoints: atomic, checksummed, with fallback to the previous one if damaged."""

import hashlib
import json
import os

import numpy as np
import pytest

from cnn_jax.training import checkpoint
from cnn_jax.training.checkpoint import CheckpointError, Damaged


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
        lambda path: path.write_bytes(b"[" * 100_000 + b"\n"),
    ],
    ids=[
        *("empty", "short", "header only", "last bit", "array", "payload", "header"),
        "deep header",
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_used(directory, damage):
    damage(directory / "step_000000003.ckpt")
    found, _, complaints = checkpoint.restore(directory, state(0))
    assert found["w"].tolist() == [2.0] * 5
    assert len(complaints) == 1
    assert "step_000000003.ckpt: damaged" in complaints[0]
    # set aside, it does not displace a good one
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
    found, _, _ = checkpoint.restore(directory, state(0))
    assert int(found["step"]) == 3


def test_files_that_are_only_named_like_checkpoints_are_left_alone(directory):
    (directory / "step_000000009").mkdir()
    (directory / "step_000000008.ckpt").mkdir()
    newest = (directory / "step_000000003.ckpt").read_bytes()
    strangers = ("step_000000001 (copy).ckpt", "step_best.ckpt", "step_000000007.ckpt~")
    for name in strangers:
        (directory / name).write_bytes(newest)
    found, _, complaints = checkpoint.restore(directory, state(0))
    assert int(found["step"]) == 3
    assert complaints == []
    checkpoint.save(directory, 4, state(4), {})
    assert all((directory / name).read_bytes() == newest for name in strangers)
    names = [path.name for path in checkpoint.steps(directory)]
    assert names == ["step_000000003.ckpt", "step_000000004.ckpt"]


def test_a_renamed_one_is_not_taken_for_another_step(directory):
    (directory / "step_000000003.ckpt").rename(directory / "step_000000030.ckpt")
    found, _, complaints = checkpoint.restore(directory, state(0))
    assert int(found["step"]) == 2
    assert "step_000000030.ckpt: damaged (contains step 3)" in complaints[0]


def test_any_flipped_bit_is_detected(directory):
    """Damage to the header, the notes, or the arrays' names, shapes and values."""
    path = directory / "step_000000003.ckpt"
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            broken = bytearray(whole)
            broken[place] ^= 1 << bit
            path.write_bytes(bytes(broken))
            with pytest.raises(Damaged):
                checkpoint.read(path, state(0))


def test_any_truncation_is_detected(directory):
    path = directory / "step_000000003.ckpt"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            checkpoint.read(path, state(0))


def test_ten_digits_of_steps_come_after_nine(tmp_path):
    for step in (999_999_999, 1_000_000_000):
        checkpoint.save(tmp_path / "checkpoints", step, state(1), {"note": step})
    _, notes, _ = checkpoint.restore(tmp_path / "checkpoints", state(0))
    assert notes == {"note": 1_000_000_000}


def test_a_checkpoint_is_durable_before_save_returns(directory, monkeypatch):
    """The content is synced before the file is renamed, and the name afterwards."""
    events = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        events.append(("sync", os.fstat(handle).st_ino))
        fsync(handle)

    def renamed(source, target):
        events.append(("rename", os.stat(source).st_ino, target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    checkpoint.save(directory, 4, state(4), {})
    path = directory / "step_000000004.ckpt"
    content = path.stat().st_ino
    assert events == [
        *(("sync", content), ("rename", content, path)),
        ("sync", directory.stat().st_ino),
    ]


def test_a_new_directory_of_checkpoints_is_durable_itself(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: synced.append(os.fstat(handle).st_ino) or fsync(handle),
    )
    checkpoint.save(tmp_path / "checkpoints", 1, state(1), {})
    assert synced[0] == tmp_path.stat().st_ino


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
    _, _, rest = path.read_bytes().partition(b"\n")
    digest = hashlib.sha256(b"format 99\n" + rest).hexdigest()
    header = {"format": 99, "sha256": digest}
    path.write_bytes(json.dumps(header).encode() + b"\n" + rest)
    # complete, so it is preferred to the previous one
    with pytest.raises(CheckpointError, match=r"format 99, but this version reads 2"):
        checkpoint.restore(directory, state(0))
    assert path.exists()


def test_the_state_of_another_net_is_refused(directory):
    with pytest.raises(CheckpointError, match="another network"):
        checkpoint.read(directory / "step_000000003.ckpt", {"v": np.zeros(5)})
    wider = {"w": np.zeros(6, np.float32), "step": np.int32(0)}
    with pytest.raises(
        CheckpointError, match=r"expected an array of float32\[6\], got float32\[5\]"
    ):
        checkpoint.read(directory / "step_000000003.ckpt", wider)
