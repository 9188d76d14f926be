"""Files that were damaged, lost or left half-written: named, and never passed over."""

import hashlib
import json
import os
import signal

import pytest

from cnn_jax import study
from cnn_jax.names import ConfigError
from cnn_jax.train import checkpoint
from cnn_jax.train.checkpoint import CheckpointError
from cnn_jax.train.interrupt import Interrupted
from cnn_jax.train.loop import fit
from cnn_jax.train.run_directory import RunDirectory


@pytest.fixture
def place(program, tmp_path):
    """A run that was stopped at step 9, with checkpoints of steps 4 and 8."""
    place = RunDirectory(tmp_path / "run")

    def stop(step, row):
        if step == 9:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fit(program, 0, place, stop)
    names = [path.name for path in checkpoint.steps(place.checkpoints)]
    assert names == ["step_000000004.ckpt", "step_000000008.ckpt"]
    assert [row["step"] for row in place.rows()] == [3, 6, 9]
    return place


def flipped(content, where):
    broken = bytearray(content)
    broken[where] ^= 1
    return bytes(broken)


DAMAGE = {
    "emptied": lambda content: b"",
    "header only": lambda content: content[: content.index(b"\n") + 1],
    "half": lambda content: content[: len(content) // 2],
    "a byte short": lambda content: content[:-1],
    "header": lambda content: flipped(content, 3),
    "notes": lambda content: flipped(content, content.index(b'"seconds"') + 13),
    "first array": lambda content: flipped(content, content.index(b"params") + 200),
    "last array": lambda content: flipped(content, -40),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_newest_checkpoint(program, reference, place, damage, capsys):
    path = checkpoint.steps(place.checkpoints)[-1]
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    fit(program, 0, place)
    out = capsys.readouterr().out
    assert "step_000000008.ckpt: damaged" in out
    assert "using the one before" in out
    assert (place.checkpoints / "step_000000008.ckpt.damaged").exists()
    reference.assert_equals(place)


def test_the_newest_checkpoint_is_missing(program, reference, place):
    checkpoint.steps(place.checkpoints)[-1].unlink()
    fit(program, 0, place)
    reference.assert_equals(place)


def test_half_written_files_of_a_killed_process_are_cleared_away(
    program, reference, place
):
    for left in (
        place.checkpoints / ".step_000000012.ckpt.77.tmp",
        place.path / ".metrics.jsonl.77.tmp",
    ):
        left.write_bytes(b"half")
    fit(program, 0, place)
    assert not [*place.path.rglob("*.tmp")]
    reference.assert_equals(place)


def test_all_checkpoints_damaged(program, place):
    for path in checkpoint.steps(place.checkpoints):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no usable .*000008.*000004"):
        fit(program, 0, place)
    assert [row["step"] for row in place.rows()] == [3, 6, 9]


def test_all_checkpoints_lost(program, place):
    for path in checkpoint.steps(place.checkpoints):
        path.unlink()
    with pytest.raises(CheckpointError, match="reaches step 9, but there is no check"):
        fit(program, 0, place)
    assert [row["step"] for row in place.rows()] == [3, 6, 9]


def test_the_only_checkpoint_is_lost_before_the_log_tells_of_it(program, tmp_path):
    place = RunDirectory(tmp_path / "run")

    def terminate(step, row):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        fit(program, 0, place, terminate)
    (path,) = checkpoint.steps(place.checkpoints)
    path.unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"was saved in .*no checkpoint"):
            fit(program, 0, place)
        if place.checkpoints.exists():
            place.checkpoints.rmdir()


def test_killed_before_the_first_checkpoint_was_whole(program, reference, tmp_path):
    place = RunDirectory(tmp_path / "run")

    def stop(step, row):
        if step == 2:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fit(program, 0, place, stop)
    place.checkpoints.mkdir()
    (place.checkpoints / ".step_000000004.ckpt.a.1.tmp").write_bytes(b"half")
    fit(program, 0, place)
    reference.assert_equals(place)


LOGS = {
    "lost": None,
    "emptied": lambda log: b"",
    "cut short": lambda log: log[:-30],
    "cut within an old row": lambda log: log[:20],
    "a flipped bit": lambda log: flipped(log, 30),
    "zeros": lambda log: bytes(len(log)),
    "a half-written row": lambda log: log + b'{"step": 1',
    "a row too many": lambda log: log + b'{"step": 9}\n',
}


@pytest.mark.parametrize("damage", LOGS)
def test_the_log(program, reference, place, damage, capsys):
    path = place.path / "metrics.jsonl"
    log = path.read_bytes()
    if LOGS[damage] is None:
        path.unlink()
    else:
        path.write_bytes(LOGS[damage](log))
    fit(program, 0, place)
    kept = log.split(b"\n")[:2]
    harmless = path.exists() and damage in (
        "cut short",  # of the row after the checkpoint
        "a half-written row",
        "a row too many",
    )
    warned = "metrics.jsonl was damaged; written again" in capsys.readouterr().out
    assert warned != harmless
    assert path.read_bytes().split(b"\n")[:2] == kept
    reference.assert_equals(place)


def test_a_damaged_log_of_a_finished_run_is_named(tmp_path):
    place = RunDirectory(tmp_path / "runs" / "plain-8-seed0")
    place.path.mkdir(parents=True)
    place.append_row({"step": 1})
    place.append_row({"step": 2})
    place.finish({"status": "finished"})
    path = place.path / "metrics.jsonl"
    path.write_bytes(flipped(path.read_bytes(), 0))
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: line 1 is damaged"):
        study.logs(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[1]", b"\xff\xfe", b"\0" * 9]
)
@pytest.mark.parametrize(
    ("name", "advice"),
    [("config.json", "restore it from a backup"), ("result.json", "delete it, and")],
)
def test_config_and_result(program, reference, place, name, advice, content):
    fit(program, 0, place)
    path = place.path / name
    whole = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(
        ConfigError, match=f"{name} cannot be read: .*{advice}"
    ) as error:
        fit(program, 0, place)
    assert "\n" not in str(error.value)
    if name == "result.json":  # the advice is good
        path.unlink()
        fit(program, 0, place)
        reference.assert_equals(place)
    else:
        path.write_bytes(whole)
        assert fit(program, 0, place)["status"] == "finished"


def to_format_1(place):
    """The directory as the version before would have written it."""
    config = json.loads((place.path / "config.json").read_text())
    assert config.pop("format") == 2
    (place.path / "config.json").write_text(json.dumps(config))
    for path in checkpoint.steps(place.checkpoints):
        _, body, payload = path.read_bytes().split(b"\n", 2)
        head = json.loads(body)
        notes = head["notes"]
        log = notes.pop("log").encode()
        rate = notes["window"].pop("rate")
        assert rate > 0
        notes |= {"log_size": len(log), "row": {}}
        digest = hashlib.sha256(payload).hexdigest()  # the content alone
        header = {"format": 1, **head, "sha256": digest}
        path.write_bytes(json.dumps(header).encode() + b"\n" + payload)


def test_a_directory_of_the_version_before_goes_on(program, reference, place):
    to_format_1(place)
    fit(program, 0, place)
    reference.assert_equals(place)


def test_a_log_shorter_than_a_checkpoint_of_format_1_says(program, place):
    to_format_1(place)
    os.truncate(place.path / "metrics.jsonl", 10)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is shorter than"):
        fit(program, 0, place)


@pytest.mark.parametrize("version", [0, 3, "new"])
def test_a_directory_of_another_version_is_refused(program, place, version):
    path = place.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": version}))
    with pytest.raises(ConfigError, match=rf"format {version}, .* reads 1 to 2"):
        fit(program, 0, place)
    with pytest.raises(ConfigError, match=rf"format {version}, .* reads 1 to 2"):
        place.result()
