"""Analyse trained plain and residual nets to show why residual networks work.

    python -m experiments.why_resnets_work [--study=DIR | --run=DIR] \\
        [--config=configs/why_resnets_work_digits.py] [--workdir=DIR] \\
        [--only=gradients,responses] [--data_dir=DIR] [--workers=N]

Analyses the nets of a study, which it first trains unless ``--study`` names a trained
one, or those of a single run. Writes a report (``report.html``), a CSV file and
figures (PNG and SVG) for each analysis, and the summary of these analyses
(``summary.csv``). The directory is ``runs/NAME`` by default, or ``why_resnets_work``
in the given study or run. Completed work is kept: the same command resumes a stopped
analysis. If an analysis fails, the report shows the failure and the exit status is 1.
"""

import argparse
import dataclasses
import pathlib
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cnn_jax import plots, study
from cnn_jax.analysis import trained
from cnn_jax.names import ConfigError
from cnn_jax.plots.style import FIGURE_STYLE, depth_styles
from cnn_jax.report import page, tables
from cnn_jax.study import execution
from cnn_jax.study.pool import compute_all
from cnn_jax.study.progress import StudyProgress, counted
from cnn_jax.training import config as run_config
from cnn_jax.training import files
from cnn_jax.training.files import write_atomically
from cnn_jax.training.run_directory import RunDirectory
from experiments import launch
from experiments.why_resnets_work import degradation, introduction, registry
from experiments.why_resnets_work.analysis import Analysis, Settings, Styles
from experiments.why_resnets_work.measurement import (
    MeasurementFailed,
    measurements,
    program_of,
    reason_of,
)

# Columns of ``summary.csv``.
COLUMNS = ["analysis", "quantity", "family", "depth", "seeds", "mean", "std"]


def define(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add = parser.add_argument
    output = "output directory (default: runs/NAME, or why_resnets_work inside "
    add("--workdir", default="", help=f"{output}--study or --run)")
    trained_study = "analyse this trained study instead of training one"
    add("--study", default="", help=trained_study)
    add("--run", default="", help="analyse this single run")
    moved = "dataset directory of --study or --run, if it has moved"
    add("--data_dir", default="", help=moved)
    known = f"some of: {', '.join(registry.ANALYSES)}"
    add("--only", type=launch.listed(), default=[], help=known)
    launch.add_workers(parser)


@launch.command(__doc__, define, config="why_resnets_work_digits.py")
def main(values: argparse.Namespace) -> int:
    """Train unfinished runs, measure missing rows and write all results."""
    config = run_config.as_dict(values.config)
    trains = not (values.study or values.run)
    chosen = registry.check(config, values.only, trains)
    if values.study and values.run:
        raise ConfigError("--study and --run exclude each other")
    if values.data_dir and trains:
        raise ConfigError("--data_dir needs --study or --run")
    directory = results_directory(values, config["name"])
    title = title_of(values, config["name"])
    launch.check_machine(values.workers)
    analyses = {name: registry.resolve(name, config[name])[0] for name in chosen}
    groups: dict[tuple[str, int], list[str]] = {}
    missing: list[str] = []
    study_directory = None
    if values.run:
        program = program_of(values.run, values.data_dir)
        groups = {trained.family_and_depth(program, values.run): [values.run]}
    elif values.study or any(analysis.of_nets for analysis in analyses.values()):
        study_directory = pathlib.Path(values.study or directory / "study")
        if trains:
            train(config["study"], study_directory, values.workers)
        table = study.load(study_directory)
        groups = study.groups(table, study_directory)
        if not groups:
            raise ConfigError(f"{study_directory} contains no finished runs of a study")
        unfinished = study.unfinished(table, study_directory)
        missing = [f"{name} ({status})" for name, status in unfinished.items()]
    if missing:
        print(f"skipped runs: {', '.join(missing)}", file=sys.stderr)
    kept = directory / "analyses"
    tasks = measurements(config, chosen, groups, kept, values.data_dir)
    if not tasks:
        nets = ", ".join(f"{family}-{depth}" for family, depth in groups)
        raise ConfigError(f"{', '.join(chosen)}: no net to analyse among {nets}")
    # For rows still to be measured, loading the net checks the data.
    stored = [run for task in tasks if task.cached() for run in task.group.runs]
    trained.check_stored(stored, values.data_dir)
    directory.mkdir(parents=True, exist_ok=True)
    with counted("analyses", len(tasks)) as progress:
        found = compute_all(tasks, values.workers, progress)
    results: dict[str, list[Any]] = {name: [] for name in chosen}
    for task, of_task in zip(tasks, found, strict=True):
        results[task.analysis].append(of_task)
    show = Show(title, directory, depth_styles(depth for _, depth in groups))
    sections: dict[str, page.Section] = {}
    if study_directory:
        sections["degradation"] = attempt(
            *("degradation", degradation.draw, table),
            *(study.held_out_of(study_directory), directory, title),
        )
    for name, analysis in analyses.items():
        if results[name]:
            sections[name] = attempt(
                name, show.section, name, analysis, config[name], results[name]
            )
        else:
            print(f"{name}: skipped, no net to analyse", file=sys.stderr)
    write_summary(show.numbers, directory)
    runs = [
        (*kind, RunDirectory(run).config() or {})
        for kind, of_kind in groups.items()
        for run in of_kind
    ]
    report = introduction.compose(title, config, sections, runs, missing, trains)
    path = directory / "report.html"
    write_atomically(path, page.render(report, directory).encode())
    print(path)
    return 1 if any(section.failure for section in sections.values()) else 0


def results_directory(values: argparse.Namespace, name: str) -> pathlib.Path:
    """The directory of the results, a different one for each study or run."""
    looked_at = values.study or values.run
    default = f"{looked_at}/why_resnets_work" if looked_at else f"runs/{name}"
    return files.local(values.workdir or default)


def title_of(values: argparse.Namespace, name: str) -> str:
    """The name shown in titles: the study's own name, or that of the directory."""
    recorded = study.StudyDirectory(values.study).config() if values.study else None
    if recorded:
        return recorded["name"]
    return pathlib.Path(values.study or values.run or name).resolve().name


def train(config: dict[str, Any], directory: pathlib.Path, workers: int) -> None:
    """Train the unfinished runs of the study.

    Raises:
      ConfigError: a run failed or diverged; an incomplete study must be noticed.
    """
    runs = study.StudyDirectory(directory).enter(config)
    with StudyProgress(runs) as progress:
        unfinished = execution.execute(runs, directory, progress, workers)
    if unfinished:
        lines = "; ".join(f"{e.run.name} {e.status}: {e.message}" for e in unfinished)
        raise ConfigError(f"the study is incomplete: {lines}")


def attempt(
    name: str, make: Callable[..., page.Section], *arguments: Any
) -> page.Section:
    """Call ``make``; if it raises an error, return a section that shows the failure."""
    try:
        return make(*arguments)
    except MeasurementFailed as error:
        reason = str(error)
    except Exception as error:  # the report still shows the other analyses
        traceback.print_exc()
        reason = reason_of(error)
    print(f"error: {name} failed: {reason}", file=sys.stderr)
    return page.Section(title=name, failure=reason)


@dataclasses.dataclass
class Show:
    """Writes the tables and figures of analyses and builds sections of the report."""

    title: str  # of the study or run
    directory: pathlib.Path
    styles: Styles
    # Summaries of the analyses shown so far.
    numbers: list[pd.DataFrame] = dataclasses.field(default_factory=list)

    def section(
        self, name: str, analysis: Analysis, settings: Settings, results: Sequence[Any]
    ) -> page.Section:
        """The section of an analysis from the results of its measurements.

        Raises:
          MeasurementFailed: a result is the reason of a failure, or there are no rows.
        """
        failures = [reason for reason in results if isinstance(reason, str)]
        if failures:
            raise MeasurementFailed("; ".join(failures))
        if not any(results):
            raise MeasurementFailed("there is nothing to measure with these settings")
        table = pd.DataFrame([row for rows in results for row in rows])
        table = table.sort_values(tables.NET, kind="stable", ignore_index=True)
        write_csv(table, self.directory / f"{name}.csv")
        # Non-finite numbers count as missing.
        table = table.replace([np.inf, -np.inf], np.nan)
        self.draw(analysis, table)
        made = analysis.section(table, settings)
        for figure in made.figures:
            figure.source(self.directory)  # raises if the file is missing
        numbers = tables.summarize(table, analysis.summary)
        self.numbers.append(numbers.assign(analysis=name)[COLUMNS])
        return made

    def draw(self, analysis: Analysis, rows: pd.DataFrame) -> None:
        """Write an analysis's figures; those of nets carry the study's name."""
        with plt.rc_context(FIGURE_STYLE):
            for name, figure in analysis.draw(rows, self.styles).items():
                words = f"{self.title}: " if analysis.of_nets else ""
                words += figure.get_suptitle()
                # The title of a narrow figure is wrapped.
                width = int(12 * figure.get_figwidth())
                figure.suptitle("\n".join(textwrap.wrap(words, width)))
                plots.save(figure, self.directory, name)


def write_summary(numbers: Sequence[pd.DataFrame], directory: pathlib.Path) -> None:
    """Write the summaries of this command's analyses."""
    parts = [pd.DataFrame(columns=COLUMNS), *numbers]
    table = pd.concat([part.astype(object) for part in parts])
    write_csv(table, directory / "summary.csv")


def write_csv(table: pd.DataFrame, path: pathlib.Path) -> None:
    """Write a table and print its name."""
    study.write_table(table, path, "nan")
    print(path)


if __name__ == "__main__":
    sys.exit(main())
