"""The lock of a run directory: a file lock, cross-checked between machines.

The kernel holds the lock (flock) and releases it when the process ends, however it
ends. Some network file systems forward locks to their server; others silently grant
them per machine (Lustre's ``localflock``, NFS's ``local_lock``, BeeGFS's default).
Therefore a holder also updates the file's modification time as a sign of life. A
process that obtains a lock which another machine has not released first watches for
that sign.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

from cnn_jax.names import ConfigError

SIGN_EVERY = 10.0  # seconds between signs of life
WATCH = 35.0  # seconds for which another machine watches for one
LOOKS = 1.0  # seconds for which a call of `held` may block the lock
RELEASED = "released\n"
CONTENT = re.compile(r"(process \d+ on \S+\n(released\n)?)?")


class InUse(ConfigError):
    """Another process is training in this run directory."""


class Moved(ConfigError):
    """The run directory is no longer where it was."""


def is_one(path: pathlib.Path) -> bool:
    """Whether a file is a lock file, by its content."""
    return path.is_file() and CONTENT.fullmatch(_content(path)) is not None


@contextlib.contextmanager
def hold(path: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Hold a lock file.

    Args:
      path: the file, in the directory to lock; created if missing.

    Yields:
      A function to call before every write. It raises `InUse` if a process on
      another machine took the lock nevertheless, and `Moved` if the directory was
      renamed or deleted.

    Raises:
      OSError: the file cannot be written.
      InUse: another process holds the lock.
      ConfigError: the file system has no locks, or none between machines.
    """
    own = f"process {os.getpid()} on {socket.gethostname()}\n"
    with open(path, "a+", encoding="utf-8", errors="replace") as file:
        try:
            _take(file, path)
        except BlockingIOError:
            file.seek(0)
            raise InUse(
                f"workdir {path.parent} is in use by {file.readline().strip()}"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"the file system of {path.parent} does not support file locks "
                f"({error.strerror}); choose a workdir on another file system"
            ) from None
        file.seek(0)
        _check_gone(path, file.read())
        file.truncate(0)
        file.write(own)
        file.flush()
        done = threading.Event()
        sign = threading.Thread(target=_show_life, args=(path, own, done), daemon=True)
        sign.start()

        def check() -> None:
            _check_place(path, file)
            other = _taker(path, own)
            if other:
                raise InUse(
                    f"{other} took over {path.parent} while this process was training "
                    "there; this process has written nothing since"
                )

        try:
            yield check
        finally:
            done.set()
            sign.join()
            if not _taker(path, own):
                with contextlib.suppress(OSError):  # a full disk
                    file.write(RELEASED)
                    file.flush()


@contextlib.contextmanager
def wait(path: pathlib.Path) -> Iterator[None]:
    """Hold a file's lock for a moment, after the processes that hold it now.

    Args:
      path: the file; created if missing. It must be a regular one: network file
        systems do not share the locks of directories.

    Raises:
      OSError: the file cannot be written. Missing locks are no error.
    """
    with open(path, "a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _take(file: IO[str], path: pathlib.Path) -> None:
    """Lock a file, waiting out the moment for which `held` may lock it."""
    end = time.monotonic() + LOOKS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if held(path) or time.monotonic() > end:
                raise
        time.sleep(0.005)


def held(path: pathlib.Path) -> bool:
    """Whether a process holds a lock file now."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or no locks: `hold` reports it
        return False
    return False


def _check_gone(path: pathlib.Path, left: str) -> None:
    """Make sure that a holder on another machine is dead, if the file names one."""
    found = re.fullmatch(r"process \d+ on (\S+)\n", left)
    if found is None or found[1] == socket.gethostname():
        return
    print(
        f"{path.parent}: {left.strip()} has not released the lock; checking for "
        f"{WATCH:.0f} s whether it is still running",
        file=sys.stderr,
        flush=True,
    )
    before = _changed(path)
    end = time.monotonic() + WATCH
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH / 5))
        if _changed(path) != before:
            raise ConfigError(
                f"{left.strip()} is training in {path.parent}, yet this machine got "
                "the lock: the file system does not share locks between machines; "
                "mount it with shared locks, or use one machine"
            )


def _check_place(path: pathlib.Path, file: IO[str]) -> None:
    """Make sure that the path still leads to the locked file."""
    try:
        there = os.stat(path)
    except OSError:
        there = None
    if there is not None and os.path.samestat(there, os.fstat(file.fileno())):
        return
    if there is None and path.parent.is_dir():
        happened = f"{path} was deleted or cannot be read"
    else:
        happened = f"{path.parent} was renamed, deleted or replaced"
    raise Moved(
        f"{happened} while this process was training there; nothing was written "
        "since; restore it and run the same command again to resume from the last "
        "checkpoint"
    )


def _changed(path: pathlib.Path) -> int:
    # Opening a file makes NFS query its server; a stat alone does not.
    with open(path) as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _taker(path: pathlib.Path, own: str) -> str:
    """The other process named in the file; '' if none or if it is unreadable."""
    try:
        found = _content(path)
    except OSError:
        return ""
    return "" if found == own else found.strip() or "another process"


def _content(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _show_life(path: pathlib.Path, own: str, done: threading.Event) -> None:
    while not done.wait(SIGN_EVERY):
        other = _taker(path, own)
        if other:
            print(
                f"error: {other} took over {path.parent} while this process was "
                "training there: the file system does not share locks between "
                "machines",
                file=sys.stderr,
                flush=True,
            )
            os.kill(os.getpid(), signal.SIGTERM)
            return
        with contextlib.suppress(OSError):
            os.utime(path)
