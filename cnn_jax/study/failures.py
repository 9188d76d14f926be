"""The failed runs of a study: the message and the traceback of each, on disk.

``failures/NAME.txt`` names the command and the machine where the run failed, so that
the other workers and jobs of this command do not try the run again on this machine. On
another machine, and in a later command, they do.
"""

import contextlib
import pathlib
import platform
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from cnn_jax.names import ConfigError
from cnn_jax.training.checkpoint import CheckpointError
from cnn_jax.training.interrupt import Interrupted
from cnn_jax.training.loop import Diverged
from cnn_jax.training.run_directory import RunDirectory


class Tried(Exception):
    """The run has failed in this command, on this machine."""


class Attempt(RunDirectory):
    """The directory of a run, for one attempt in a command on this machine.

    Args:
      directory: the study's directory.
      run: the run's name.
      command: identifies the command, see `execution.execute`.
    """

    def __init__(self, directory: pathlib.Path, run: str, command: str):
        super().__init__(directory / "runs" / run)
        self._of = directory, run, command

    @contextlib.contextmanager
    def open_for_training(self, config: Mapping[str, Any]) -> Iterator[None]:
        """See `RunDirectory.open_for_training`.

        A failure is recorded before the lock is released, so that no other worker
        tries the run again.

        Raises:
          Tried: another worker tried the run and failed.
        """
        with super().open_for_training(config):
            if self.failed() is not None:
                raise Tried(self.failed())
            try:
                yield
            except (ConfigError, Diverged, Interrupted):
                raise
            except Exception as error:
                self.fail(error)
                raise

    def failed(self) -> str | None:
        """Why the run failed; None if it has not failed."""
        return message(*self._of)

    def fail(self, error: Exception) -> str:
        """Record an error; returns why the run failed, in one line."""
        line, *_ = str(error).split("\n")
        if not isinstance(error, CheckpointError):  # written for users
            line = f"{type(error).__name__}: {line}"
        record(*self._of, line, "".join(traceback.format_exception(error)))
        return line


def record(
    directory: pathlib.Path, run: str, command: str, message: str, trace: str
) -> None:
    """Record a failure, unless the disk itself has failed.

    Args:
      directory: the study's directory.
      run: the run's name.
      command: identifies the command that tried the run, see `execution.execute`.
      message: why it failed, in one line.
      trace: the traceback, or other details.
    """
    path = _path(directory, run)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"{message}\n{_where(command)}\n\n{trace}"
        # A reader of half a record tries the run again, at worst.
        path.write_bytes(text.encode(errors="replace"))


def message(directory: pathlib.Path, run: str, command: str) -> str | None:
    """Why a run failed in a command on this machine; None if it has not failed."""
    try:
        text = _path(directory, run).read_bytes().decode(errors="replace")
    except OSError:
        return None
    found, _, rest = text.partition("\n")
    return found if rest.startswith(f"{_where(command)}\n") else None


def forget(directory: pathlib.Path, run: str) -> None:
    """Delete the record of a run that has ended since."""
    with contextlib.suppress(OSError):
        _path(directory, run).unlink(missing_ok=True)


def _where(command: str) -> str:
    return f"command {command} on {platform.node()}"


def _path(directory: pathlib.Path, run: str) -> pathlib.Path:
    return directory / "failures" / f"{run}.txt"
