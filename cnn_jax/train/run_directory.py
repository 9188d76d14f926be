"""A run on disk: config, log, checkpoints and the mark that it is finished.

config.json      what was run
metrics.jsonl    one JSON object a logged step, append-only
checkpoints/     see `cnn_jax.train.checkpoint`
result.json      present when the run is finished (or has diverged)
lock             held by the process that trains here
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from cnn_jax.names import ConfigError
from cnn_jax.train.checkpoint import write_atomically

# These say where and how a run happens, not what it computes.
FREE_KEYS = (
    "dataset.data_dir",
    "dataset.stream.workers",
    "parallel.mode",
    "parallel.devices",
    "steps_per_dispatch",
)
# Recorded beside the config, from the data and the devices of the first start.
FINGERPRINT, BN_IMAGES = "data_fingerprint", "bn_images"


class InUse(ConfigError):
    """Another process is training in this run directory."""


class RunDirectory:
    """The files of one run.

    Args:
      path: the directory; created by `open_for_training`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.checkpoints = self.path / "checkpoints"

    def result(self) -> dict[str, Any] | None:
        """What a finished run came to, or None while it is not finished."""
        return _read_json(self.path / "result.json")

    def config(self) -> dict[str, Any] | None:
        """The config the run was started with, or None if it never was."""
        return _read_json(self.path / "config.json")

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Refuse a config other than the one this directory was started with.

        Args:
          config: the run's config; what `fit` records beside it is compared only
            if it is given.

        Raises:
          ConfigError: naming every key that differs, and both values.
        """
        old = self.config()
        if old is None:
            return
        for derived in (FINGERPRINT, BN_IMAGES):
            if derived not in config:
                old.pop(derived, None)
        before, now = flatten(old), flatten(json.loads(json.dumps(dict(config))))
        absent = "(absent)"
        differing = [
            f"{key}: {before.get(key, absent)!r} there, {now.get(key, absent)!r} now"
            for key in sorted({*before, *now})
            if before.get(key, absent) != now.get(key, absent) and key not in FREE_KEYS
        ]
        if differing:
            raise ConfigError(
                f"{self.path} holds a run of another config ({'; '.join(differing)}); "
                "choose another workdir, or delete this one"
            )

    @contextlib.contextmanager
    def open_for_training(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Create the directory or check that it is this run's, and lock it.

        Args:
          config: the run's config, as JSON would hold it.

        Raises:
          ConfigError: not writable, not a run directory, or another config.
          InUse: another process is training here.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / "lock", "a+")  # noqa: SIM115
        except OSError as error:
            raise ConfigError(
                f"workdir {self.path} cannot be written: {error.strerror}"
            ) from None
        with lock:
            try:
                # The kernel drops the lock with the process, however it ends.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise InUse(
                    f"workdir {self.path} is in use by {lock.read().strip()}"
                ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            if self.config() is None:
                strangers = sorted(
                    item.name
                    for item in self.path.iterdir()
                    if item.name != "lock" and not item.name.endswith(".tmp")
                )
                if strangers:
                    raise ConfigError(
                        f"workdir {self.path} is not a run directory: it holds "
                        f"{', '.join(strangers[:5])} and no config.json"
                    )
                text = json.dumps(dict(config), indent=2) + "\n"
                write_atomically(self.path / "config.json", text.encode())
            self.check_config(config)
            yield

    def held(self) -> bool:
        """Whether a process is training here now."""
        try:
            with open(self.path / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def rows(self) -> list[dict[str, Any]]:
        """The log, a dict a row; a last line still being written is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        text = path.read_text()
        complete = text[: text.rfind("\n") + 1]
        return [json.loads(line) for line in complete.splitlines()]

    def cut_log(self, size: int) -> None:
        """Forget rows past ``size`` bytes: those after the last checkpoint."""
        path = self.path / "metrics.jsonl"
        with open(path, "ab") as file:
            file.truncate(size)

    def append_row(self, row: Mapping[str, Any]) -> int:
        """Add a row to the log.

        Args:
          row: a JSON object; no wall-clock times, so that logs can be compared.

        Returns:
          The log's size in bytes, for `cut_log`.
        """
        with open(self.path / "metrics.jsonl", "ab") as file:
            file.write(json.dumps(dict(row)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished."""
        text = json.dumps(dict(result), indent=2) + "\n"
        write_atomically(self.path / "result.json", text.encode())


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
