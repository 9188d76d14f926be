"""What the runs of a study came to, rebuilt from their directories."""

import csv
import dataclasses
import io
import pathlib
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from cnn_jax.train.checkpoint import write_atomically
from cnn_jax.train.run_directory import RunDirectory

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
