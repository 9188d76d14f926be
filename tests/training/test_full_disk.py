"""A disk that is full, read-only or over quota: an error, and nothing is lost."""

import contextlib
import errno
import os
import resource
import subprocess

import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint
from cnn_jax.training.loop import fit
from cnn_jax.training.run_directory import RunDirectory
from experiments import launch
from tests.needs import skip_without
from tests.tiers import fast


def run(body):
    """Run a command of no flags; returns its exit status."""
    return launch.command("", lambda parser: None)(body)([])


def mount(*arguments):
    return subprocess.run(("mount", *arguments), capture_output=True, check=False)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid()
        or mount("-t", "tmpfs", "-o", "size=256k", "none", place).returncode
    ):
        skip_without("root")
    yield place
    subprocess.run(("umount", place), check=True)


@contextlib.contextmanager
def filled(disk, room):
    """Fill the disk until ``room`` bytes are left, in whole pages."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
    ballast.write_bytes(bytes(free - room))
    yield
    ballast.unlink()


def intact(place, program):
    """The step of the newest checkpoint, after checking that all is intact."""
    state, _, complaints = checkpoint.restore(
        place.checkpoints, program.initial_state(0)
    )
    assert complaints == []
    return int(state.step)


@contextlib.contextmanager
def from_step(step, hindrance):
    """A report to `fit` that sets up the hindrance from a step on."""
    with contextlib.ExitStack() as hindered:

        def report(now, row):
            if now == step:
                hindered.enter_context(hindrance)

        yield report


@pytest.mark.parametrize("room", fast([4096, 12288], [0, 4096, 12288]))
def test_a_full_disk(program, reference, small_disk, room):
    """Full after step 5: at the log row of step 6, or a checkpoint after it."""
    place = RunDirectory(small_disk / "run")
    with from_step(5, filled(small_disk, room)) as report:
        with pytest.raises(OSError, match="No space left") as error:
            fit(program, 0, place, report)
        assert intact(place, program) == (8 if room > 12000 else 4)
        assert [row["step"] for row in place.rows()][:1] == [3]
        assert not [*place.path.rglob("*.tmp")]
    assert error.value.errno == errno.ENOSPC
    fit(program, 0, place)
    reference.assert_equals(place)


@contextlib.contextmanager
def read_only(disk):
    assert mount("-o", "remount,ro", disk).returncode == 0
    yield
    assert mount("-o", "remount,rw", disk).returncode == 0


@contextlib.contextmanager
def covered(directory):
    """A directory that becomes read-only while its files are in use."""
    assert mount("--bind", "-o", "ro", directory, directory).returncode == 0
    yield
    subprocess.run(("umount", directory), check=True)


def test_checkpoints_that_become_read_only(program, reference, small_disk):
    place = RunDirectory(small_disk / "run")
    with from_step(5, covered(place.checkpoints)) as report:
        with pytest.raises(OSError, match="Read-only file system"):
            fit(program, 0, place, report)
        assert intact(place, program) == 4
        assert [row["step"] for row in place.rows()] == [3, 6]
    fit(program, 0, place)
    reference.assert_equals(place)


def test_a_read_only_directory_is_refused_with_a_line(program, small_disk, capsys):
    with read_only(small_disk):
        status = run(lambda values: fit(program, 0, RunDirectory(small_disk / "run")))
    assert status == 2
    error = capsys.readouterr().err
    assert "cannot be written: Read-only file system" in error
    assert error.count("\n") == 1


def test_a_finished_run_is_shown_from_a_read_only_disk(program, small_disk):
    place = RunDirectory(small_disk / "run")
    result = fit(program, 0, place)
    with read_only(small_disk):
        assert fit(program, 0, place) == result
        with pytest.raises(ConfigError, match="seed: was 0, is 1"):
            fit(program, 1, place)


@contextlib.contextmanager
def quota(size):
    """Limit the size of files, which affects a write as a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", fast([200], [0, 200, 1000]))
def test_a_quota(program, reference, tmp_path, size):
    """A row or a checkpoint is only partly written."""
    place = RunDirectory(tmp_path / "run")
    limited = from_step(5, quota(size))
    with limited as report, pytest.raises(OSError, match="File too large"):
        fit(program, 0, place, report)
    assert intact(place, program) == 4
    assert [row["step"] for row in place.rows()] in ([3], [3, 6])
    fit(program, 0, place)
    reference.assert_equals(place)


def test_the_exit_status_is_2_and_the_message_one_line(program, tmp_path, capsys):
    with from_step(5, quota(0)) as report:
        place = RunDirectory(tmp_path / "run")
        status = run(lambda values: fit(program, 0, place, report))
    assert status == 2
    error = capsys.readouterr().err
    assert error == "error: [Errno 27] File too large\n"
