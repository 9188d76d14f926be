"""The failed runs of a study: the message and the traceback of each, on disk.

``failures/NAME.txt`` names the command and the machine where the run failed, so that
the other workers and jobs of this command do not try the run again on this machine. On
another machine, and in a later command, they do.
"""

import contextlib
import pathlib
import platform


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
