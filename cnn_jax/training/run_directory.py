"""A run on disk: config, log, checkpoints and result.

One file, beyond 350 lines, because one class keeps these files consistent.

config.json      the config, and the format of this directory
data.npz         facts about the data that the network depends on
                 (`cnn_jax.data.facts`)
metrics.jsonl    one JSON object per logged step, append-only
checkpoints/     see `cnn_jax.training.checkpoint`
saved            created with the first checkpoint: a run that has it must have one
result.json      present when the run is finished (or has diverged)
lock             held by the training process, see `cnn_jax.training.lock`

Every file can be read at any time: rows are appended, all other files are replaced
atomically. config.json and result.json contain their own checksum; result.json also
contains that of the log.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint, files, lock, provenance
from cnn_jax.training.config_keys import differences, rename

FORMAT = 3
READABLE = (2, 3)  # 2 has no checksums in its JSON files
PLUGINS = "plugins"  # recorded with the config, but may differ on resume
LOG_CHECKSUM = "log_sha256"  # in result.json
REWRITE = (
    "delete result.json and run the same command to rewrite it from the last checkpoint"
)


class RunDirectory:
    """The files of one run.

    Writing to it raises `InUse` where another process has taken the directory, and
    `Moved` where it was renamed or deleted.

    Args:
      path: the directory (``~`` is expanded); `open_for_training` creates it.

    Raises:
      ConfigError: an address such as gs://bucket/run.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = files.local(path)
        self.checkpoints = self.path / "checkpoints"
        self._check_own: Callable[[], None] = _nothing

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, or None while it is not finished.

        Raises:
          ConfigError: it is damaged, or another version wrote it.
        """
        result = self._result()
        if result is not None:
            result.pop(LOG_CHECKSUM, None)
        return result

    def _result(self) -> dict[str, Any] | None:
        _, version = self._config()
        path = self.path / "result.json"
        result = files.read_json(path, REWRITE, lambda _: version > 2)
        if result is not None and "status" not in result:
            raise ConfigError(f"{path} cannot be read: it has no status; {REWRITE}")
        return result

    def config(self) -> dict[str, Any] | None:
        """The config of the run, or None if the run was never started.

        Raises:
          ConfigError: it is damaged or not a run's, or another version wrote it.
        """
        return self._config()[0]

    def _config(self) -> tuple[dict[str, Any] | None, int]:
        """The config, and the format of this directory; (None, 0) if there is none."""
        path = self.path / "config.json"
        advice = "restore it from a backup, or delete the directory"
        config = files.read_json(path, advice, lambda found: found.get("format") == 3)
        if config is None:
            return None, 0
        version = config.pop("format", None)
        if version is None:
            raise ConfigError(
                f"{self.path} is not a run directory: its config.json has no format; "
                "choose another workdir"
            )
        if version not in READABLE:
            raise ConfigError(
                f"{path}: the run directory has format {version}, but this version "
                f"reads {READABLE[0]} to {FORMAT}; use the version that wrote it"
            )
        rename(config)
        return config, version

    def finished(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of a finished run, or None while it is not finished.

        Works in a read-only directory. The only file it may write is a damaged log,
        which it repairs if possible.

        Args:
          config: see `check_config`.

        Raises:
          ConfigError: the run has another config, or the log is damaged and no
            checkpoint holds a copy.
        """
        result = self.result()
        if result is not None:
            if self.config() is None:
                lost = f"{self.path} has a result but no config.json; restore it"
                raise ConfigError(f"{lost} from a backup, or delete the directory")
            self.check_config(config)
            self.log()
        return result

    def changed_plugins(self, config: Mapping[str, Any]) -> list[str]:
        """Plugin modules of a config whose files have changed since the run began."""
        before = (self.config() or {}).get(PLUGINS, {})
        now = provenance.plugins(config)
        return sorted(name for name in now if before.get(name, now[name]) != now[name])

    def convolutions(self) -> str | None:
        """The library that computed convolutions when the run began; old runs: None."""
        return (self.config() or {}).get(provenance.CONVOLUTIONS)

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Refuse a config that differs from the one this run was started with.

        Args:
          config: the run's config; the values that `fit` records with it are
            compared only if they are given.

        Raises:
          ConfigError: names every key that differs, with both values.
        """
        old = self.config()
        if old is None:
            return
        new = json.loads(json.dumps(dict(config)))
        for key in (PLUGINS, *provenance.RECORDED):
            if key not in provenance.FIXED or key not in new or key not in old:
                old.pop(key, None)
                new.pop(key, None)
        if provenance.BN_IMAGES in new:  # decides the groups on any number of devices
            for tree in (old, new):
                tree.get("parallel", {}).pop("bn_group_size", None)
        differing = differences(old, new)
        if differing:
            raise ConfigError(
                f"{self.path} contains a run with another config "
                f"({'; '.join(differing)}); choose another workdir, or delete this one"
            )

    def _check_ours(self) -> None:
        """Refuse a non-empty directory that is not a run's, before changing it."""
        if not self.path.is_dir():
            return
        path = self.path / "lock"
        strangers = files.strangers(self.path, [path])
        if path.exists() and not lock.is_one(path):
            strangers.append("lock")
        # In this order, since another process may be starting the run now.
        if strangers and self.config() is None:
            raise ConfigError(
                f"workdir {self.path} is not a run directory: it contains "
                f"{', '.join(strangers[:5])} and no config.json; choose another workdir"
            )

    @contextlib.contextmanager
    def open_for_training(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Create the directory, or check that it belongs to this run, and lock it.

        Args:
          config: the run's config, of JSON types.

        Raises:
          ConfigError: the directory is not writable, not a run's, or has another
            config.
          InUse: another process is training in it.
        """
        with contextlib.ExitStack() as opened:
            try:
                self._check_ours()
                self.path.mkdir(parents=True, exist_ok=True)
                self._check_own = opened.enter_context(lock.hold(self.path / "lock"))
            except OSError as error:
                raise ConfigError(
                    f"workdir {self.path} cannot be written: {error.strerror} "
                    f"({error.filename})"
                ) from None
            if self.config() is None:
                content = {"format": FORMAT, **config}
                files.write_json(self.path / "config.json", content)
            self.check_config(config)
            # This process holds the lock, so these are left from killed processes.
            for place in (self.path, self.checkpoints):
                for unfinished in place.glob(".*.tmp"):
                    unfinished.unlink()
            try:
                yield
            finally:
                self._check_own = _nothing

    def held(self) -> bool:
        """Whether a process is training in this directory now."""
        return lock.held(self.path / "lock")

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the log as dicts, without an incomplete last line.

        Raises:
          ConfigError: a line is not a JSON object.
        """
        lines = self.log().split(b"\n")[:-1]
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(dict(json.loads(line)))
            except (ValueError, TypeError, RecursionError):
                raise ConfigError(
                    f"{self.path / 'metrics.jsonl'}: line {number} is damaged"
                ) from None
        return rows

    def log(self) -> bytes:
        """The content of the log file; empty if there is no file.

        If the run is finished and the file is damaged or missing, this returns the
        copy in a checkpoint and, where it can, restores the file from it.

        Raises:
          ConfigError: the log cannot be read, and no checkpoint has a copy.
        """
        result = self._result()
        if result is None:
            return self._raw_log()
        path, checksum = self.path / "metrics.jsonl", result.get(LOG_CHECKSUM)

        def whole(log: bytes) -> bool:
            # Directories of format 2 have no checksum.
            return files.sha256(log) == checksum if checksum else bool(log)

        with contextlib.suppress(ConfigError):
            log = self._raw_log()
            if whole(log):
                return log
        for kept in reversed(checkpoint.steps(self.checkpoints)):
            with contextlib.suppress(checkpoint.CheckpointError):
                copy = checkpoint.notes(kept)["log"].encode()
                if whole(copy):
                    print(
                        f"warning: {path} is damaged; using its copy in {kept.name}",
                        file=sys.stderr,
                    )
                    with contextlib.suppress(OSError):
                        files.write_atomically(path, copy)
                    return copy
        raise ConfigError(
            f"{path} is damaged or missing, and no checkpoint has a copy; {REWRITE}"
        )

    def _raw_log(self) -> bytes:
        path = self.path / "metrics.jsonl"
        return files.read(path, "move it away, then run the same command") or b""

    def restore_log(self, log: bytes) -> bool:
        """Restore the log to its content at a checkpoint; drops later rows.

        Args:
          log: the content at the checkpoint.

        Returns:
          Whether the file was intact; if not, it has been rewritten.
        """
        found = self._raw_log()
        whole = found.startswith(log)
        if found != log:
            files.write_atomically(self.path / "metrics.jsonl", log)
        return whole

    def append_row(self, row: Mapping[str, Any]) -> bytes:
        """Add a row to the log.

        Args:
          row: a JSON object without wall-clock times, so that logs can be compared.

        Returns:
          The line written.
        """
        line = json.dumps(dict(row)).encode() + b"\n"
        with self._writing(), open(self.path / "metrics.jsonl", "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return line

    def save(self, step: int, state: Any, notes: dict[str, Any]) -> None:
        """Write a checkpoint (see `checkpoint.save`) and create the file "saved".

        Args:
          step: optimizer steps taken.
          state: a pytree of host arrays.
          notes: other data for resuming, of JSON types.

        Raises:
          OSError: the write failed; earlier checkpoints are intact.
        """
        with self._writing():
            checkpoint.save(self.checkpoints, step, state, notes)
            if not self.was_saved():
                files.write_atomically(self.path / "saved", b"")

    def was_saved(self) -> bool:
        """Whether a checkpoint was ever completed here."""
        return (self.path / "saved").exists()

    def data(self) -> bytes:
        """The recorded facts about the data (`cnn_jax.data.facts`); old runs: empty."""
        with contextlib.suppress(OSError):
            return (self.path / "data.npz").read_bytes()
        return b""

    def record_data(self, content: bytes) -> None:
        """Record the facts about the data, unless they are already recorded.

        Raises:
          OSError: the write failed.
        """
        if self.data() != content:
            with self._writing():
                files.write_atomically(self.path / "data.npz", content)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished."""
        with self._writing():
            content = {**result, LOG_CHECKSUM: files.sha256(self._raw_log())}
            files.write_json(self.path / "result.json", content)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Guard a write: the directory must still belong to this process."""
        self._check_own()
        try:
            yield
        except FileNotFoundError:
            self._check_own()  # raises a clearer error if the directory moved
            raise


def _nothing() -> None:
    """The ownership check while the directory is not open for training."""
