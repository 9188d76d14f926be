"""A run on disk: config, log, checkpoints and the mark that it is finished.

config.json      what was run, and the format of this directory
data.npz         what the network must know of its data (`cnn_jax.data.facts`)
metrics.jsonl    one JSON object a logged step, append-only
checkpoints/     see `cnn_jax.training.checkpoint`
saved            present once a checkpoint was whole: from then on there must be one
result.json      present when the run is finished (or has diverged)
lock             held by the process that trains here, see `cnn_jax.training.lock`

Every file can be read at any moment: rows are appended, all else is replaced.
config.json and result.json carry their checksum; result.json has the log's too.
"""

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint, files, lock, provenance

FORMAT = 3
READABLE = (2, 3)  # 2 has no checksums in its JSON files
# These say where and how a run happens, not what it computes; but with more devices
# or fewer, augmentation and dropout draw other numbers (each device its own).
FREE_KEYS = (
    "log.writers",
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
# Recorded beside the config, from the data, the devices, JAX's settings and the
# plugins of the first start. Those but the plugins must be equal on resume.
FINGERPRINT, BN_IMAGES, PLUGINS = "data_fingerprint", "bn_images", "plugins"
RECORDED = (FINGERPRINT, BN_IMAGES, *provenance.SETTINGS)
LOG_CHECKSUM = "log_sha256"  # in result.json
REWRITE = (
    "delete result.json, and the run's command writes it again from the last checkpoint"
)
# What systems and redirected output leave in a directory that is new otherwise.
HARMLESS = ("Thumbs.db", "desktop.ini", "lost+found")
OUTPUT = (".log", ".out", ".err", ".txt")


class RunDirectory:
    """The files of one run.

    Args:
      path: the directory, ``~`` for the home; created by `open_for_training`.

    Raises:
      ConfigError: an address such as gs://bucket/run.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = files.local(path)
        self.checkpoints = self.path / "checkpoints"
        self._check_own: Callable[[], None] = _nothing

    def result(self) -> dict[str, Any] | None:
        """What a finished run came to, or None while it is not finished.

        Raises:
          ConfigError: damaged, or written by another version.
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
        """The config the run was started with, or None if it never was.

        Raises:
          ConfigError: damaged, of something else, or written by another version.
        """
        return self._config()[0]

    def _config(self) -> tuple[dict[str, Any] | None, int]:
        """The config, and the format of this directory; 0 where there is none."""
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
                f"{path}: a run directory of format {version}, this version reads "
                f"{READABLE[0]} to {FORMAT}; use the version that wrote it"
            )
        rename(config)
        return config, version

    def finished(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of a run that is finished, or None. Writes nothing but a log
        that was damaged, where it can, so a read-only directory will do.

        Args:
          config: as `check_config` takes it.

        Raises:
          ConfigError: another config, or damaged beyond what the checkpoints hold.
        """
        result = self.result()
        if result is not None:
            self.check_config(config)
            self.log()
        return result

    def changed_plugins(self, config: Mapping[str, Any]) -> list[str]:
        """Modules named in a config whose file has changed since the run began."""
        before = (self.config() or {}).get(PLUGINS, {})
        now = provenance.plugins(config)
        return sorted(name for name in now if before.get(name, now[name]) != now[name])

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
        new = json.loads(json.dumps(dict(config)))
        for key in (PLUGINS, *RECORDED):
            if key == PLUGINS or key not in new or key not in old:
                old.pop(key, None)
                new.pop(key, None)
        free = set(FREE_KEYS)
        model = config.get("model", {})
        if model.get("stochastic_depth") or ":" in str(model.get("block", "")):
            # In a loop blocks draw other numbers, and one's own may draw some.
            free.remove("model.scan")
        before, now = flatten(old), flatten(new)
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

    def _check_ours(self) -> None:
        """Refuse a directory of something else, before anything in it is touched."""
        if self.config() is not None or not self.path.is_dir():
            return
        strangers = sorted(
            item.name for item in self.path.iterdir() if not _is_harmless(item)
        )
        if strangers:
            raise ConfigError(
                f"workdir {self.path} is not a run directory: it holds "
                f"{', '.join(strangers[:5])} and no config.json; choose another workdir"
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
            except (ValueError, TypeError, RecursionError):
                raise ConfigError(
                    f"{self.path / 'metrics.jsonl'}: line {number} is damaged"
                ) from None
        return rows

    def log(self) -> bytes:
        """The log as it stands in its file; nothing where there is none.

        Of a finished run it is what it was then: a file that is damaged or lost is
        written again from a checkpoint's copy, where it can be written.

        Raises:
          ConfigError: it cannot be read, and no checkpoint has its copy.
        """
        result = self._result()
        if result is None:
            return self._raw_log()
        path, checksum = self.path / "metrics.jsonl", result.get(LOG_CHECKSUM)

        def whole(log: bytes) -> bool:
            # directories of format 2 have no checksum
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
                        f"warning: {path} is damaged; its copy in {kept.name} is used",
                        file=sys.stderr,
                    )
                    with contextlib.suppress(OSError):
                        files.write_atomically(path, copy)
                    return copy
        raise ConfigError(
            f"{path} is damaged or lost, and no checkpoint has its copy; {REWRITE}"
        )

    def _raw_log(self) -> bytes:
        path = self.path / "metrics.jsonl"
        return files.read(path, "move it away, and the run's command resumes") or b""

    def restore_log(self, log: bytes) -> bool:
        """Make the log what it was at a checkpoint: later rows are forgotten.

        Args:
          log: its content then.

        Returns:
          Whether the file was whole; if not, it has been written again.
        """
        found = self._raw_log()
        whole = found.startswith(log)
        if found != log:
            files.write_atomically(self.path / "metrics.jsonl", log)
        return whole

    def append_row(self, row: Mapping[str, Any]) -> bytes:
        """Add a row to the log.

        Args:
          row: a JSON object; no wall-clock times, so that logs can be compared.

        Returns:
          The line that was written.

        Raises:
          InUse: another process has taken the directory.
          Moved: it was renamed or deleted.
        """
        line = json.dumps(dict(row)).encode() + b"\n"
        with self._writing(), open(self.path / "metrics.jsonl", "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return line

    def save(self, step: int, state: Any, notes: dict[str, Any]) -> None:
        """Write a checkpoint (see `checkpoint.save`), and that there is one.

        Args:
          step: optimizer steps taken.
          state: a pytree of host arrays.
          notes: what else a resume needs, as JSON.

        Raises:
          OSError: it could not be written; earlier checkpoints are intact.
          InUse: another process has taken the directory.
          Moved: it was renamed or deleted.
        """
        with self._writing():
            checkpoint.save(self.checkpoints, step, state, notes)
            if not self.was_saved():
                files.write_atomically(self.path / "saved", b"")

    def was_saved(self) -> bool:
        """Whether a checkpoint was ever completed here."""
        return (self.path / "saved").exists()

    def data(self) -> bytes:
        """What was recorded of the data (`cnn_jax.data.facts`); nothing by old runs."""
        with contextlib.suppress(OSError):
            return (self.path / "data.npz").read_bytes()
        return b""

    def record_data(self, content: bytes) -> None:
        """Keep what the network must know of its data, unless it is there.

        Raises:
          OSError: it could not be written.
          InUse: another process has taken the directory.
          Moved: it was renamed or deleted.
        """
        if self.data() != content:
            with self._writing():
                files.write_atomically(self.path / "data.npz", content)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished.

        Raises:
          InUse: another process has taken the directory.
          Moved: it was renamed or deleted.
        """
        with self._writing():
            content = {**result, LOG_CHECKSUM: files.sha256(self._raw_log())}
            files.write_json(self.path / "result.json", content)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Something is written here, if the directory is still this process's."""
        self._check_own()
        try:
            yield
        except FileNotFoundError:
            self._check_own()  # the likely reason has words of its own
            raise


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


def _is_harmless(item: pathlib.Path) -> bool:
    """Whether a file may be in the way of a new run."""
    if item.name == "lock":
        return lock.is_one(item)
    if item.name.startswith(".") or item.name in HARMLESS:
        return True
    if not item.is_file():
        return False
    # This process's own output, whatever its name.
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(item.stat(), os.fstat(stream)):
                return True
    return item.suffix in OUTPUT
