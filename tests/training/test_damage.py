"""Damaged, lost or half-written files: reported by name, never ignored."""

import os
import shutil
import signal

import pytest

from cnn_jax import study
from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint, files
from cnn_jax.training.checkpoint import CheckpointError
from cnn_jax.training.interrupt import Interrupted
from cnn_jax.training.loop import fit
from cnn_jax.training.run_directory import RunDirectory
from tests.tiers import fast


@pytest.fixture(scope="module")
def stopped(program, tmp_path_factory):
    """A run stopped at step 9, with checkpoints of steps 4 and 8."""
    place = RunDirectory(tmp_path_factory.mktemp("stopped") / "run")

    def stop(step, row):
        if step == 9:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fit(program, 0, place, stop)
    names = [path.name for path in checkpoint.steps(place.checkpoints)]
    assert names == ["step_000000004.ckpt", "step_000000008.ckpt"]
    assert [row["step"] for row in place.rows()] == [3, 6, 9]
    return place.path


@pytest.fixture
def place(stopped, tmp_path):
    """A copy of the stopped run."""
    shutil.copytree(stopped, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def attempt(call):
    """The error line of a call, or '', and its result."""
    try:
        return "", call()
    except (ConfigError, CheckpointError, OSError) as error:
        return str(error), None


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


@pytest.mark.parametrize("damage", fast(["half", "header", "last array"], DAMAGE))
def test_the_newest_checkpoint(program, reference, place, damage, capsys):
    path = checkpoint.steps(place.checkpoints)[-1]
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    fit(program, 0, place)
    out = capsys.readouterr().out
    assert "step_000000008.ckpt: damaged" in out
    assert "using the previous one" in out
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
    with pytest.raises(CheckpointError, match="reaches step 9, but no checkpoint ex"):
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


@pytest.mark.parametrize(
    "damage", fast(["lost", "cut short", "a flipped bit", "a row too many"], LOGS)
)
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
        "cut short",  # the row after the checkpoint
        "a half-written row",
        "a row too many",
    )
    warned = "rewrote metrics.jsonl, which was damaged" in capsys.readouterr().out
    assert warned != harmless
    assert path.read_bytes().split(b"\n")[:2] == kept
    reference.assert_equals(place)


@pytest.fixture
def finished(reference, tmp_path):
    """A copy of the finished run."""
    shutil.copytree(reference.place.path, tmp_path / "finished")
    return RunDirectory(tmp_path / "finished")


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_no_changed_character_of_a_finished_run_is_believed(finished, name):
    """A digit, a letter of a key, the checksum itself: every third character."""
    path = finished.path / name
    whole, config, result = path.read_bytes(), finished.config(), finished.result()
    refused = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(flipped(whole, place))
        said, found = attempt(lambda: (finished.config(), finished.result()))
        assert name in said or found == (config, result)
        refused += bool(said)
    assert refused > 0.2 * len(whole)


@pytest.mark.parametrize("damage", ["lost", "emptied", "cut short", "a flipped bit"])
def test_the_log_of_a_finished_run(reference, finished, damage, capsys):
    """The result is read from the last checkpoint and written again."""
    path, log = finished.path / "metrics.jsonl", reference.place.log()
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(LOGS[damage](log))
    assert finished.rows() == reference.place.rows()
    said = capsys.readouterr().err
    assert "metrics.jsonl is damaged; using its copy in step_000000012.ckpt" in said
    assert path.read_bytes() == log


def test_any_changed_number_in_the_log_of_a_finished_run(reference, finished):
    path, log = finished.path / "metrics.jsonl", reference.place.log()
    for place in range(0, len(log), 41):
        path.write_bytes(flipped(log, place))
        assert finished.rows() == reference.place.rows()


def test_a_directory_in_the_place_of_the_log(program, reference, finished, place):
    for run in (finished, place):
        (run.path / "metrics.jsonl").unlink()
        (run.path / "metrics.jsonl").mkdir()
    assert finished.rows() == reference.place.rows()
    with pytest.raises(ConfigError, match=r"metrics\.jsonl cannot be read: Is a dir"):
        fit(program, 0, place)


def test_a_damaged_log_that_no_checkpoint_has_is_named(program, reference, finished):
    path = finished.path / "metrics.jsonl"
    path.write_bytes(flipped(path.read_bytes(), 40))
    kept = {path: path.read_bytes() for path in checkpoint.steps(finished.checkpoints)}
    for path in kept:
        path.write_bytes(b"")
    for read in (finished.rows, lambda: fit(program, 0, finished)):
        with pytest.raises(
            ConfigError, match=r"damaged or missing.*delete result\.json"
        ):
            read()
    for path, content in kept.items():
        path.write_bytes(content)
    (finished.path / "result.json").unlink()  # the advice is good
    fit(program, 0, finished)
    reference.assert_equals(finished)


def test_a_study_does_not_tabulate_a_damaged_run(tmp_path):
    place = RunDirectory(tmp_path / "runs" / "plain-8-seed0")
    place.path.mkdir(parents=True)
    place.append_row({"step": 1})
    place.append_row({"step": 2})
    place.finish({"status": "finished"})
    path = place.path / "metrics.jsonl"
    path.write_bytes(flipped(path.read_bytes(), 0))
    with pytest.raises(ConfigError, match=r"metrics\.jsonl is damaged"):
        study.logs(tmp_path)


ANYTHING = {
    "no text": b"\xff\xfe\x00\xd8",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of many digits": b'{"format": ' + b"9" * 5000 + b"}",
    "a list of pairs": b'[["format", 3], ["status", "finished"]]',
    "a directory": None,
}


@pytest.mark.parametrize(
    "content",
    [
        name if name == "deep objects" else pytest.param(name, marks=pytest.mark.slow)
        for name in ANYTHING
    ],
)
@pytest.mark.parametrize(
    "name", ["config.json", "result.json", "metrics.jsonl", "lock", "checkpoint"]
)
def test_a_file_of_anything_is_named_in_a_line(program, place, name, content):
    """Or rewritten from intact files, but never trusted, and without a traceback."""
    path = place.path / name
    if name == "checkpoint":
        path = checkpoint.steps(place.checkpoints)[-1]
    path.unlink(missing_ok=True)
    if ANYTHING[content] is None:
        path.mkdir()
    else:
        path.write_bytes(ANYTHING[content] + b"\n")
    said, _ = attempt(lambda: fit(program, 0, place))
    if said:
        assert name in said
        assert "\n" not in said
        assert len(said) < 600
    else:
        assert [row["step"] for row in place.rows()] == [3, 6, 9, 12]


@pytest.mark.parametrize(
    "content",
    fast([b"{", b"null"], [b"", b"{", b"null", b"[1]", b"\xff\xfe", b"\0" * 9]),
)
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("config.json", "restore it from a backup"),
        ("result.json", "delete result.json and"),
    ],
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


@pytest.mark.parametrize("version", [1, 4, "new"])
def test_a_directory_of_another_version_is_refused(program, place, version):
    files.write_json(place.path / "config.json", {**place.config(), "format": version})
    with pytest.raises(ConfigError, match=rf"format {version}, .* reads 2 to 3"):
        fit(program, 0, place)
    with pytest.raises(ConfigError, match=rf"format {version}, .* reads 2 to 3"):
        place.result()
