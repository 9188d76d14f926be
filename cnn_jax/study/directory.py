"""A study on disk: its config and its runs.

study.json       the config, with all families, depths and seeds requested so far,
                 and the names of the requested runs
.lock            held while study.json is read and replaced
runs/            run directories, see `cnn_jax.training.run_directory`
failures/        tracebacks of failed runs
results.csv and the figures: rebuilt from the runs

Studies of the previous version have no study.json.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from cnn_jax.names import ConfigError
from cnn_jax.study import plan
from cnn_jax.study.plan import Run
from cnn_jax.training import config as run_config
from cnn_jax.training import files, lock, run_name
from cnn_jax.training.config_keys import FREE_KEYS, flatten, rename
from cnn_jax.training.run_directory import RunDirectory

FORMAT = 1
LOCK = ".lock"
ABSENT = "(absent)"
# Keys that every run replaces, or that do not change the result of a run.
FREE = {"run.seed", "run.model.depth", *(f"run.{key}" for key in FREE_KEYS)}


class StudyDirectory:
    """The files of one study.

    Args:
      path: the directory.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = files.local(path)

    def config(self) -> dict[str, Any] | None:
        """The union of all configs requested so far, or None if none is recorded.

        Raises:
          ConfigError: it is damaged, or another version wrote it.
        """
        return self._read()[0]

    def asked(self) -> list[str]:
        """The names of all runs requested so far; [] if none is recorded.

        Raises:
          ConfigError: see `config`.
        """
        return self._read()[1]

    def _read(self) -> tuple[dict[str, Any] | None, list[str]]:
        path = self.path / "study.json"
        try:
            config = dict(json.loads(path.read_text()))
            version, asked = config.pop("format"), list(map(str, config.pop("runs")))
            if version == FORMAT:
                plan.check(config)
        except FileNotFoundError:
            return None, []
        except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{path} cannot be read: {error!s:.200}; delete it and run the study's "
                "command to write it again"
            ) from None
        if version != FORMAT:
            raise ConfigError(
                f"{path}: the study has format {version}, but this version reads "
                f"{FORMAT}; use the version that wrote it"
            )
        for section in (config["run"], *_values(config, "families", "overrides")):
            rename(section)
        return config, asked

    def enter(self, config: run_config.Config) -> list[Run]:
        """Record a study's config; it may add families, depths and seeds.

        Args:
          config: of the study, see `cnn_jax.study.expand`.

        Returns:
          The runs of ``config``.

        Raises:
          ConfigError: the config is invalid, or differs from the recorded one in
            anything but families, depths and seeds; the message names the keys.
        """
        runs = plan.expand(config)
        for key, reason in plan.useless_overrides(config).items():
            print(
                f"warning: config.overrides.{key} has no effect: {reason}",
                file=sys.stderr,
                flush=True,
            )
        config = json.loads(json.dumps(run_config.as_dict(config)))
        if (self.path / "config.json").exists():
            raise ConfigError(
                f"{self.path} contains a run; choose another workdir for the study"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with lock.wait(self.path / LOCK):
                old, asked = self._read()
                if old is None:
                    new, asked = self._with_runs(config)
                else:
                    self._check(old, config)
                    new = _union(old, config)
                asked = list(dict.fromkeys([*asked, *(run.name for run in runs)]))
                record = {"format": FORMAT, "runs": asked, **new}
                text = json.dumps(record, indent=2) + "\n"
                files.write_atomically(self.path / "study.json", text.encode())
        except OSError as error:
            raise ConfigError(
                f"workdir {self.path} cannot be written: {error.strerror}"
            ) from None
        return runs

    def runs(self, warn: bool = False) -> list[tuple[RunDirectory, dict[str, Any]]]:
        """The runs of the study that have been started.

        Args:
          warn: warn on stderr about other files in ``runs/``, except hidden ones.

        Returns:
          The directory of each run with its family, depth and seed, sorted by these.

        Raises:
          ConfigError: the config of a run is damaged.
        """
        (config, asked), found, strangers = self._read(), [], []
        for path in sorted((self.path / "runs").glob("[!.]*")):
            head = run_name.parse(path.name) if path.is_dir() else None
            if config is not None and path.name not in asked:
                head = None
            if head is not None and _belongs(RunDirectory(path), head, config):
                found.append((RunDirectory(path), head))
            else:
                strangers.append(repr(path.name))
        if strangers and warn:
            print(
                f"warning: {self.path / 'runs'}: ignored, not runs of this study: "
                f"{', '.join(strangers)}",
                file=sys.stderr,
                flush=True,
            )
        return sorted(found, key=lambda run: tuple(run[1].values()))

    def _check(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """Refuse a config that changes earlier runs."""
        before, now = _fixed(old, new), _fixed(new, old)
        differing = [
            f"{key}: was {before.get(key, ABSENT)!r}, is {now.get(key, ABSENT)!r}"
            for key in sorted({*before, *now})
            if before.get(key, ABSENT) != now.get(key, ABSENT) and key not in FREE
        ]
        if differing:
            advice = "choose another workdir, or delete this one"
            if not any((self.path / "runs").glob("[!.]*")):
                advice += " (nothing has been trained there)"
            raise ConfigError(
                f"{self.path} contains a study with another config "
                f"({'; '.join(differing)}); only families, depths and seeds can be "
                f"added to a study: {advice}"
            )

    def _with_runs(self, config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The config and run names if none is recorded: derived from the runs."""
        depths, seeds, names = list(config["depths"]), list(config["seeds"]), []
        for run_directory, head in self.runs():
            if head["family"] in plan.families(config):
                run_directory.check_config(plan.config_of(config, **head))
                depths.append(head["depth"])
                seeds.append(head["seed"])
                names.append(run_directory.path.name)
        return _union(config, {**config, "depths": depths, "seeds": seeds}), names


def _values(config: Mapping[str, Any], *keys: str) -> list[dict[str, Any]]:
    return [changes for key in keys for changes in config[key].values()]


def _belongs(
    run_directory: RunDirectory,
    head: Mapping[str, Any],
    config: Mapping[str, Any] | None,
) -> bool:
    """Whether a directory holds the run of its name, with the study's config.

    Raises:
      ConfigError: its config is damaged.
    """
    own = run_directory.config()
    if config is None:
        depth = own["model"].get("depth", head["depth"]) if own else head["depth"]
        return own is None or (own["seed"], depth) == (head["seed"], head["depth"])
    try:
        run_directory.check_config(plan.config_of(config, **head))
    except ConfigError:
        return False
    return True


def _fixed(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that must equal another's in a study, with dotted keys."""
    arms, others = plan.families(config), plan.families(other)
    depths = [f"depth{depth}" for depth in config["depths"] if depth in other["depths"]]
    return flatten(
        {
            "run": config["run"],
            "families": {name: arms[name] for name in arms if name in others},
            "overrides": {key: config["overrides"].get(key, {}) for key in depths},
        }
    )


def _union(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The union of two configs; keys that may differ take their new values."""
    overrides = {
        f"depth{depth}": config["overrides"][f"depth{depth}"]
        for config in (new, old)
        for depth in config["depths"]
        if f"depth{depth}" in config["overrides"]
    }
    return {
        **new,
        "families": {**plan.families(old), **plan.families(new)},
        "depths": list(dict.fromkeys([*old["depths"], *new["depths"]])),
        "seeds": list(dict.fromkeys([*old["seeds"], *new["seeds"]])),
        "overrides": overrides,
    }
