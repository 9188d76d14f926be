"""A run on disk: config, log, checkpoints and the mark that it is finished.

config.json      what was run, and the format of this directory
metrics.jsonl    one JSON object a logged step, append-only
checkpoints/     see `cnn_jax.train.checkpoint`
saved            present once a checkpoint was whole: from then on there must be one
result.json      present when the run is finished (or has diverged)
lock             held by the process that trains here, see `cnn_jax.train.lock`

Every file can be read at any moment: rows are appended, all else is replaced.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cnn_jax.names import ConfigError
from cnn_jax.train import checkpoint, lock

# 1 (no number in its config.json) differs from 2 in its checkpoints alone.
FORMAT = 2
READABLE = (1, 2)
# These say where and how a run happens, not what it computes; but with more devices
# or fewer, augmentation and dropout draw other numbers (each device its own).
FREE_KEYS = (
    "dataset.data_dir",
    "dataset.stream.workers",
    "model.scan",
    "model.remat",
    "parallel.mode",
    "parallel.devices",
    "parallel.hosts",
    "parallel.host_timeout",
    "steps_per_execution",
)
# What keys of the config were called in the version before.
RENAMED = {
    "steps_per_dispatch": "steps_per_execution",
    "warmup.until_error": "warmup.until_train_error",
}
# Recorded beside the config, from the data and the devices of the first start.
FINGERPRINT, BN_IMAGES = "data_fingerprint", "bn_images"


class RunDirectory:
    """The files of one run.

    Args:
      path: the directory; created by `open_for_training`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.checkpoints = self.path / "checkpoints"
        self._check_own: Callable[[], None] = _nothing

    def result(self) -> dict[str, Any] | None:
        """What a finished run came to, or None while it is not finished.

        Raises:
          ConfigError: damaged, or written by another version.
        """
        self.config()
        advice = "delete it, and the run's command writes it again from its checkpoint"
        return _read_json(self.path / "result.json", advice)

    def config(self) -> dict[str, Any] | None:
        """The config the run was started with, or None if it never was.

        Raises:
          ConfigError: damaged, or written by another version.
        """
        path = self.path / "config.json"
        config = _read_json(path, "restore it from a backup, or delete the directory")
        if config is None:
            return None
        version = config.pop("format", 1)
        if version not in READABLE:
            raise ConfigError(
                f"{path}: a run directory of format {version}, this version reads "
                f"{READABLE[0]} to {FORMAT}; use the version that wrote it"
            )
        rename(config)
        return config

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
        free = set(FREE_KEYS)
        model = config.get("model", {})
        if model.get("stochastic_depth") or ":" in str(model.get("block", "")):
            # In a loop blocks draw other numbers, and one's own may draw some.
            free.remove("model.scan")
        before, now = flatten(old), flatten(json.loads(json.dumps(dict(config))))
        absent = "(absent)"
        differing = [
            f"{key}: {before.get(key, absent)!r} there, {now.get(key, absent)!r} now"
            for key in sorted({*before, *now})
            if before.get(key, absent) != now.get(key, absent) and key not in free
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
        with contextlib.ExitStack() as opened:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._check_own = opened.enter_context(lock.hold(self.path / "lock"))
            except OSError as error:
                raise ConfigError(
                    f"workdir {self.path} cannot be written: {error.strerror}"
                ) from None
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
                text = json.dumps({"format": FORMAT, **config}, indent=2) + "\n"
                checkpoint.write_atomically(self.path / "config.json", text.encode())
            self.check_config(config)
            # Nobody else writes here: these are from processes that were killed.
            for place in (self.path, self.checkpoints):
                for unfinished in place.glob(".*.tmp"):
                    unfinished.unlink()
            try:
                yield
            finally:
                self._check_own = _nothing

    def held(self) -> bool:
        """Whether a process is training here now."""
        return lock.held(self.path / "lock")

    def rows(self) -> list[dict[str, Any]]:
        """The log, a dict a row; a last line still being written is left out.

        Raises:
          ConfigError: a line is no JSON object.
        """
        lines = self.log().split(b"\n")[:-1]
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                raise ConfigError(
                    f"{self.path / 'metrics.jsonl'}: line {number} is damaged"
                ) from None
        return rows

    def log(self) -> bytes:
        """The log as it stands in its file; nothing where there is none."""
        try:
            return (self.path / "metrics.jsonl").read_bytes()
        except FileNotFoundError:
            return b""

    def restore_log(self, log: bytes) -> bool:
        """Make the log what it was at a checkpoint: later rows are forgotten.

        Args:
          log: its content then.

        Returns:
          Whether the file was whole; if not, it has been written again.
        """
        found = self.log()
        whole = found.startswith(log)
        if found != log:
            checkpoint.write_atomically(self.path / "metrics.jsonl", log)
        return whole

    def append_row(self, row: Mapping[str, Any]) -> bytes:
        """Add a row to the log.

        Args:
          row: a JSON object; no wall-clock times, so that logs can be compared.

        Returns:
          The line that was written.

        Raises:
          InUse: another process has taken the directory.
        """
        self._check_own()
        line = json.dumps(dict(row)).encode() + b"\n"
        with open(self.path / "metrics.jsonl", "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return line

    def save(self, step: int, state: Any, notes: dict[str, Any]) -> None:
        """Write a checkpoint (`cnn_jax.train.checkpoint.save`), and that there is one.

        Args:
          step: optimizer steps taken.
          state: a pytree of host arrays.
          notes: what else a resume needs, as JSON.

        Raises:
          OSError: it could not be written; earlier checkpoints are intact.
          InUse: another process has taken the directory.
        """
        self._check_own()
        checkpoint.save(self.checkpoints, step, state, notes)
        if not self.was_saved():
            checkpoint.write_atomically(self.path / "saved", b"")

    def was_saved(self) -> bool:
        """Whether a checkpoint was ever completed here."""
        return (self.path / "saved").exists()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished.

        Raises:
          InUse: another process has taken the directory.
        """
        self._check_own()
        text = json.dumps(dict(result), indent=2) + "\n"
        checkpoint.write_atomically(self.path / "result.json", text.encode())


def _nothing() -> None:
    """The check of a directory that is not open for training."""


def rename(config: dict[str, Any]) -> None:
    """Give keys of a config that an older version wrote their names of now."""
    for old, new in RENAMED.items():
        section, _, key = old.rpartition(".")
        fields = config.get(section) if section else config
        if isinstance(fields, dict) and key in fields:
            fields[new.rpartition(".")[2]] = fields.pop(key)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_json(path: pathlib.Path, advice: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; {advice}") from None
