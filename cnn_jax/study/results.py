"""The results of a study's runs as tables, rebuilt from their directories.

Only the functions that make tables import pandas, so training processes do not.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cnn_jax.study.directory import StudyDirectory
from cnn_jax.training import provenance
from cnn_jax.training.config_keys import flatten
from cnn_jax.training.files import write_atomically

if TYPE_CHECKING:
    import pandas

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
UNFINISHED = "not finished"


def load(directory: str | pathlib.Path) -> "pandas.DataFrame":
    """The runs of a study, one per row.

    Directories and files in ``runs/`` that are not runs of the study are left out,
    with a warning on stderr that names them.

    Args:
      directory: the study's directory.

    Returns:
      A table indexed by run name, sorted by family, depth and seed. Its columns are
      those of ``results.csv`` (errors are fractions; ``status`` is 'finished',
      'diverged' or 'not finished'), then the config keys that differ between runs,
      such as 'optimizer.momentum', or 'config.steps' where a column has the name of
      the key. Missing values are NaN.

    Raises:
      ConfigError: a file of a run is damaged.
    """
    import pandas as pd

    rows, configs = {}, {}
    for run_directory, head in StudyDirectory(directory).runs(warn=True):
        result = run_directory.result() or {"status": UNFINISHED}
        rows[run_directory.path.name] = {"steps": result.get("step"), **result, **head}
        config = run_directory.config() or {}
        config.pop(provenance.CONVOLUTIONS, None)  # earlier versions did not record it
        configs[run_directory.path.name] = flatten(config)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)
    table = table.astype(dict.fromkeys(("depth", "seed"), "int64"))
    table = table.astype(dict.fromkeys(("parameters", "steps"), "Int64"))
    table.index.name = "run"
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    for key in keys:
        values = [config.get(key) for config in configs.values()]
        if key not in ("seed", "model.depth") and values != values[:1] * len(values):
            table[f"config.{key}" if key in COLUMNS else key] = values
    return table.sort_values(["family", "depth", "seed"])


def logs(directory: str | pathlib.Path) -> "pandas.DataFrame":
    """The logs of a study's runs, one logged step per row.

    Args:
      directory: the study's directory.

    Returns:
      A table with the columns ``run``, ``family``, ``depth``, ``seed``, ``step`` and
      the logged metrics (errors are fractions). Missing values are NaN.

    Raises:
      ConfigError: a log is damaged.
    """
    import pandas as pd

    rows = [
        {"run": run_directory.path.name, **head, **row}
        for run_directory, head in StudyDirectory(directory).runs()
        for row in run_directory.rows()
    ]
    return pd.DataFrame(rows, columns=None if rows else ["run", *COLUMNS[:3], "step"])


def over_seeds(table: "pandas.DataFrame", column: str) -> "pandas.DataFrame":
    """Statistics of a column over the seeds of each family and depth.

    Args:
      table: from `load`; only finished runs count.
      column: a numeric column.

    Returns:
      The columns ``family``, ``depth``, ``mean``, ``std`` (sample standard deviation;
      NaN for a single seed) and ``count``, sorted by family and depth.
    """
    finished = table[table["status"] == "finished"]
    groups = finished.groupby(["family", "depth"])[column]
    return groups.agg(["mean", "std", "count"]).reset_index()


def groups(
    table: "pandas.DataFrame", directory: str | pathlib.Path
) -> dict[tuple[str, int], list[str]]:
    """The directories of the finished runs, sorted by seed, by family and depth.

    Args:
      table: from `load`.
      directory: the study's directory.
    """
    found: dict[tuple[str, int], list[str]] = {}
    for name, run in table.iterrows():
        if run["status"] == "finished":
            path = os.path.join(directory, "runs", str(name))
            found.setdefault((run["family"], run["depth"]), []).append(path)
    return found


def unfinished(
    table: "pandas.DataFrame", directory: str | pathlib.Path
) -> dict[str, str]:
    """The runs of a study that are not finished.

    These are runs that the study's config requests, or, if no config is recorded,
    runs that have been started.

    Args:
      table: from `load`.
      directory: the study's directory.

    Returns:
      The status of each run, by name.

    Raises:
      ConfigError: ``study.json`` is damaged.
    """
    status = dict(table["status"])
    asked = StudyDirectory(directory).asked() or list(status)
    of_asked = {name: status.get(name, UNFINISHED) for name in asked}
    return {name: word for name, word in of_asked.items() if word != "finished"}


def write_results(table: "pandas.DataFrame", path: pathlib.Path) -> None:
    """Write the runs that have ended to ``results.csv``, atomically.

    Args:
      table: from `load`.
      path: the file.
    """
    write_table(table.loc[table["status"] != UNFINISHED, list(COLUMNS)], path)


def write_table(
    table: "pandas.DataFrame", path: pathlib.Path, missing: str = ""
) -> None:
    """Write a table as CSV, atomically.

    Args:
      table: any table; its index is not written.
      path: the file.
      missing: what stands for a missing number.
    """
    text = table.to_csv(index=False, na_rep=missing, lineterminator="\n")
    write_atomically(path, text.encode())


def held_out(config: Mapping[str, Any]) -> str:
    """The kind of held-out set on which a run is evaluated.

    Args:
      config: of the run.

    Returns:
      'validation' if the set is part of the training split, else 'test'. In files the
      columns are named ``test_...`` in both cases.
    """
    held = flatten(config["dataset"])  # also of the set that a dataset is made of
    sizes = [held[key] for key in held if key.split(".")[-1] == "validation_size"]
    return "validation" if any(sizes) else "test"


def held_out_of(directory: str | pathlib.Path) -> str:
    """`held_out` of a study's runs; 'test' if the study has none."""
    configs = (
        run_directory.config() for run_directory, _ in StudyDirectory(directory).runs()
    )
    return next((held_out(config) for config in configs if config), "test")
