"""The degradation study: family x depth x seed, each a run of its own.

A study is a directory of runs; everything else in it (``results.csv``, figures)
is rebuilt from them. `cnn_jax.execution` trains them.
"""

import copy
import csv
import dataclasses
import io
import pathlib
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from cnn_jax import names
from cnn_jax.names import ConfigError
from cnn_jax.train import config as run_config
from cnn_jax.train.checkpoint import write_atomically
from cnn_jax.train.run_directory import RunDirectory

KEYS = ("name", "families", "depths", "seeds", "overrides", "run")
COLUMNS = (
    "family",
    "depth",
    "seed",
    "status",
    "parameters",
    "steps",
    "running_train_error",
    "clean_train_error",
    "clean_train_loss",
    "test_error",
    "test_loss",
    "seconds",
)

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
      family: the arm ('plain', 'residual').
      depth: weight layers.
      seed: of parameters, order and augmentation.
      config: the run's whole config.
    """

    family: str
    depth: int
    seed: int
    config: dict[str, Any] = dataclasses.field(hash=False, compare=False)

    @property
    def name(self) -> str:
        """Its directory's name."""
        return f"{self.family}-{self.depth}-seed{self.seed}"


def expand(config: run_config.Config) -> list[Run]:
    """The runs of a study, shallow first, seeds of a shape together.

    Args:
      config: ``families`` (arm to changes of the run's config), ``depths``,
        ``seeds``, ``overrides`` ('depth110' to changes) and ``run``.

    Returns:
      Every family x depth x seed.

    Raises:
      ConfigError: a key or a run that cannot be; nothing has compiled yet.
    """
    config = run_config.as_dict(config)
    of_a_run = config.get("run") if isinstance(config.get("run"), Mapping) else {}
    for key in config:
        if key not in KEYS and key in of_a_run:
            raise ConfigError(
                f"unknown key of a study {key!r} (did you mean --config.run.{key}?)"
            )
        if key not in KEYS:
            raise names.choices("key of a study", key, KEYS)
    missing = [key for key in KEYS if key not in config]
    if missing:
        raise ConfigError(f"a study's config lacks {', '.join(missing)}")
    for key in ("families", "depths", "seeds"):
        if not config[key]:
            raise ConfigError(f"config.{key} is empty: the study has no runs")
    for key in ("depths", "seeds"):
        if not names.has_type(config[key], tuple[int, ...]):
            raise ConfigError(f"config.{key} must be integers, got {config[key]!r}")
        if len(set(config[key])) != len(config[key]):
            raise ConfigError(f"config.{key} repeats a value: {config[key]!r}")
    known = [f"depth{depth}" for depth in config["depths"]]
    for key in config["overrides"]:
        if not key.removeprefix("depth").isdigit():
            raise names.choices("key of config.overrides", key, known)
    runs = []
    for depth in config["depths"]:
        for family, changes in config["families"].items():
            shape = merge(config["run"], {"model": {"depth": depth}})
            shape = merge(shape, changes)
            shape = merge(shape, config["overrides"].get(f"depth{depth}", {}))
            run_config.check(shape)
            names.build(
                "model", shape["model"], run_config.TABLES["model"], num_classes=2
            )
            runs += [
                Run(family, depth, seed, {**shape, "seed": seed})
                for seed in config["seeds"]
            ]
    return runs


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` with ``changes``, section by section."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def collect(directory: pathlib.Path) -> tuple[list[Row], dict[str, list[Row]]]:
    """What the finished runs of a study came to, from their directories.

    Args:
      directory: the study's directory.

    Returns:
      One row a run (the columns of ``results.csv``; errors are fractions), and
      the log rows of each run by its name.
    """
    rows, logs = [], {}
    for path in sorted((directory / "runs").glob("*-*-seed*")):
        place = RunDirectory(path)
        result = place.result()
        if result is None:
            continue
        family, depth, seed = path.name.rsplit("-", 2)
        head = {
            "family": family,
            "depth": int(depth),
            "seed": int(seed.removeprefix("seed")),
            "steps": result.get("step", 0),
        }
        rows.append({key: {**result, **head}.get(key, "") for key in COLUMNS})
        logs[path.name] = place.rows()
    rows.sort(key=lambda row: (row["family"], row["depth"], row["seed"]))
    return rows, logs


def held_out(config: Mapping[str, Any]) -> str:
    """What the examples are that a run is evaluated on beside its training set.

    Args:
      config: of the run.

    Returns:
      'validation' if they are a part of the training split, else 'test'. The
      columns of files are called ``test_...`` for both.
    """
    return "validation" if config["dataset"].get("validation_size") else "test"


def held_out_of(directory: pathlib.Path) -> str:
    """`held_out` of a study's runs, from their directories; 'test' of none."""
    for path in sorted((directory / "runs").glob("*-*-seed*")):
        config = RunDirectory(path).config()
        if config is not None:
            return held_out(config)
    return "test"


def write_results(rows: Iterable[Row], path: pathlib.Path) -> None:
    """Write ``results.csv``, replacing the old one in one go."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


@dataclasses.dataclass(frozen=True)
class Cell:
    """Mean and spread over the seeds of one family and depth.

    Attributes:
      family: the arm.
      depth: weight layers.
      values: one a seed.
    """

    family: str
    depth: int
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; 0 for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


def summarize(rows: Iterable[Row], column: str) -> list[Cell]:
    """A column of the finished runs by family and depth.

    Args:
      rows: from `collect`.
      column: a numeric column.

    Returns:
      A cell for each family and depth, in that order.
    """
    values: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["status"] == "finished":
            values.setdefault((row["family"], row["depth"]), []).append(row[column])
    return [Cell(*key, tuple(found)) for key, found in sorted(values.items())]
