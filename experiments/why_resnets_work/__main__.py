"""Why residual networks work: what trained plain and residual nets look like inside.

    python -m experiments.why_resnets_work [--study=DIR | --run=DIR] \\
        [--config=configs/why_resnets_work_digits.py] [--workdir=DIR] \\
        [--only=gradients,responses] [--data_dir=DIR] [--workers=N]

Looks at the nets of a study (trained first, unless ``--study`` names one that is) or
at a single run. Writes a page of all of it (``report.html``), a CSV and figures (PNG
and SVG) of each analysis, and the main numbers of all (``summary.csv``) into
``runs/NAME`` by default, or ``why_resnets_work`` in the study or run looked at. What
is done is kept: the same command resumes after a stop. An analysis that fails is
shown as failed in the page, and the exit status is 1.
"""

import argparse
import dataclasses
import pathlib
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cnn_jax import plots, study
from cnn_jax.analysis import trained
from cnn_jax.data import sources
from cnn_jax.names import ConfigError
from cnn_jax.plots.style import FIGURE_STYLE, depth_styles
from cnn_jax.study import execution
from cnn_jax.training import config as run_config
from cnn_jax.training import files
from cnn_jax.training.checkpoint import write_atomically
from cnn_jax.training.run_directory import RunDirectory
from experiments import launch
from experiments.progress import StudyProgress, counted
from experiments.why_resnets_work import degradation, page, registry
from experiments.why_resnets_work.analysis import Analysis, Group, Settings, Styles
from experiments.why_resnets_work.measurement import (
    Failure,
    Measurement,
    measurements,
    program_of,
    reason_of,
)
from experiments.why_resnets_work.pool import compute_all
from experiments.why_resnets_work.tables import NET

# Of ``summary.csv``.
COLUMNS = ["analysis", "quantity", "family", "depth", "seeds", "mean", "std"]


def define(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    for name, what in (
        (
            "--workdir",
            "directory of the results; by default runs/NAME, or why_resnets_work "
            "under --study or --run",
        ),
        ("--study", "a trained study, instead of a new one"),
        ("--run", "a single run to look at"),
        ("--data_dir", "where the data of --study or --run is now, if it has moved"),
    ):
        parser.add_argument(name, default="", help=what)
    known = f"some of: {', '.join(registry.ANALYSES)}"
    parser.add_argument("--only", type=launch.listed(), default=[], help=known)
    parser.add_argument(
        "--workers",
        type=launch.at_least(0),
        default=0,
        help="processes that work; 0 for one a core on CPU, one on a GPU or TPU",
    )


def body(values: argparse.Namespace) -> int:
    """Train what is not finished, measure what is not kept, write everything."""
    config = run_config.as_dict(values.config)
    chosen = registry.check(config, values.only)
    if values.study and values.run:
        raise ConfigError("--study and --run exclude each other")
    if values.data_dir and not (values.study or values.run):
        raise ConfigError("--data_dir goes with --study or --run")
    directory = place(values, config["name"])
    title = title_of(values, config["name"])
    launch.check_machine()
    analyses = {name: registry.resolve(name, config[name])[0] for name in chosen}
    missing: list[str] = []
    study_directory = None
    if values.run:
        groups = [group_of(values.run, values.data_dir)]
    elif any(analysis.of_nets for analysis in analyses.values()) or values.study:
        study_directory = pathlib.Path(values.study or directory / "study")
        if not values.study:
            train(config["study"], study_directory, values.workers)
        groups = groups_of(study_directory)
        missing = left_out(study_directory)
    else:
        groups = []
    if missing:
        print(f"left out: {', '.join(missing)}", file=sys.stderr)
    tasks = measurements(
        config, chosen, groups, directory / "analyses", values.data_dir
    )
    if not tasks:
        names = ", ".join(group.name for group in groups)
        what = ", ".join(chosen)
        raise ConfigError(f"{what}: none of the nets is looked at ({names})")
    check_data(tasks, values.data_dir)
    directory.mkdir(parents=True, exist_ok=True)
    with counted("analyses", len(tasks)) as progress:
        found = compute_all(tasks, values.workers, progress)
    results: dict[str, list[Any]] = {name: [] for name in chosen}
    for task, of_task in zip(tasks, found, strict=True):
        results[task.analysis].append(of_task)
    show = Show(title, directory, depth_styles(group.depth for group in groups))
    sections: dict[str, page.Section] = {}
    if study_directory:
        sections["degradation"] = attempt(
            "degradation",
            lambda: degradation.draw(study_directory, directory, title),
        )
    for name, analysis in analyses.items():
        if results[name]:
            sections[name] = show.section(name, analysis, config[name], results[name])
        else:
            print(f"{name}: none of the nets is looked at", file=sys.stderr)
    write_summary(show.numbers, chosen, directory)
    trained_here = study_directory is not None and not values.study
    runs = [
        (group.family, group.depth, RunDirectory(run).config() or {})
        for group in groups
        for run in group.runs
    ]
    report = page.compose(title, config, sections, runs, missing, trained_here)
    path = directory / "report.html"
    write_atomically(path, page.render(report, directory).encode())
    print(path)
    return 1 if any(section.failure for section in sections.values()) else 0


def place(values: argparse.Namespace, name: str) -> pathlib.Path:
    """Where the results go: those of different nets never into one directory."""
    looked_at = values.study or values.run
    if values.workdir or not looked_at:
        return files.local(values.workdir or f"runs/{name}")
    return pathlib.Path(looked_at) / "why_resnets_work"


def title_of(values: argparse.Namespace, name: str) -> str:
    """What is looked at, in titles: a study's own name, or the directory's."""
    recorded = study.StudyDirectory(values.study).config() if values.study else None
    if recorded:
        return recorded["name"]
    return pathlib.Path(values.study or values.run or name).resolve().name


def train(config: dict[str, Any], directory: pathlib.Path, workers: int) -> None:
    """Train the study's runs that are not finished.

    Raises:
      ConfigError: a run failed or diverged: what is missing must not go unnoticed.
    """
    runs = study.StudyDirectory(directory).enter(config)
    with StudyProgress(runs) as progress:
        workers = workers or execution.default_workers(runs)
        unfinished = execution.execute(runs, directory, progress, workers)
    if unfinished:
        lines = "; ".join(f"{e.run.name} {e.status}: {e.message}" for e in unfinished)
        raise ConfigError(f"the study is not complete: {lines}")


def groups_of(directory: pathlib.Path) -> list[Group]:
    """The groups of a study's finished runs.

    Raises:
      ConfigError: there are none.
    """
    found: dict[tuple[str, int], list[str]] = {}
    for name, row in study.load(directory).iterrows():
        if row["status"] == "finished":
            key = row["family"], row["depth"]
            found.setdefault(key, []).append(str(directory / "runs" / name))
    if not found:
        raise ConfigError(f"{directory} holds no finished runs of a study")
    return [Group(*key, tuple(runs)) for key, runs in found.items()]


def left_out(directory: pathlib.Path) -> list[str]:
    """Runs of a study that are not looked at, as 'plain-56-seed1 (diverged)'.

    Of those that its config asks for; where none is recorded, of those that have
    been started.
    """
    status = dict(study.load(directory)["status"])
    asked = study.StudyDirectory(directory).asked() or list(status)
    return [
        f"{name} ({status.get(name, 'not finished')})"
        for name in asked
        if status.get(name) != "finished"
    ]


def group_of(run: str, data_dir: str) -> Group:
    """A single run as a group of its own."""
    return Group(*trained.kind(program_of(run, data_dir), run), (run,))


def check_data(tasks: Sequence[Measurement], data_dir: str) -> None:
    """Refuse rows that are kept where the data is no longer what the runs had.

    Where rows are measured, loading the net checks it. Data that is not there at all
    is no mistake as long as every row is.

    Raises:
      ConfigError: other data.
    """
    runs = [run for task in tasks if task.cached() for run in task.group.runs]
    opened: dict[str, sources.Source] = {}
    for run in dict.fromkeys(runs):
        dataset = trained.dataset_of(run, data_dir)
        if repr(dataset) not in opened:
            try:
                opened[repr(dataset)] = sources.open_source(dataset, 0, 1)
            except ConfigError as error:
                print(f"the data cannot be compared: {error}", file=sys.stderr)
                return
        trained.check_data(run, opened[repr(dataset)])


def failed(name: str, reason: str) -> page.Section:
    """The section of an analysis that failed, which is also said on stderr."""
    print(f"error: {name} failed: {reason}", file=sys.stderr)
    return page.Section(title=name, failure=reason)


def attempt(name: str, make: Callable[[], page.Section]) -> page.Section:
    """What ``make`` returns; a failed section where it raises anything."""
    try:
        return make()
    except Exception as error:  # the report shows the others
        traceback.print_exc()
        return failed(name, reason_of(error))


@dataclasses.dataclass
class Show:
    """Shows analyses: writes tables and figures, makes sections of the report.

    Attributes:
      title: what is looked at.
      directory: of the files.
      styles: colour and dash of each depth.
      numbers: the main numbers of what was shown.
    """

    title: str
    directory: pathlib.Path
    styles: Styles
    numbers: list[pd.DataFrame] = dataclasses.field(default_factory=list)

    def section(
        self, name: str, analysis: Analysis, settings: Settings, results: Sequence[Any]
    ) -> page.Section:
        """The section of an analysis from the rows of its groups, or a failed one."""
        failures = [one.reason for one in results if isinstance(one, Failure)]
        if failures:
            return failed(name, "; ".join(failures))
        rows = pd.DataFrame([row for rows in results for row in rows])

        def show() -> page.Section:
            table = rows.sort_values(NET, kind="stable", ignore_index=True)
            write_csv(table, self.directory / f"{name}.csv")
            # What is not finite is not there, see `tables`.
            table = table.replace([np.inf, -np.inf], np.nan)
            self.draw(analysis, table)
            made = analysis.section(table, settings)
            for figure in made.figures:
                figure.source(self.directory)  # raises where one is missing
            self.numbers.append(main_numbers(name, analysis, table))
            return made

        return attempt(name, show)

    def draw(self, analysis: Analysis, rows: pd.DataFrame) -> None:
        """Write an analysis's figures, those of nets under the study's name."""
        with plt.rc_context(FIGURE_STYLE):
            for name, figure in analysis.draw(rows, self.styles).items():
                words = f"{self.title}: " if analysis.of_nets else ""
                words += figure.get_suptitle()
                # A narrow figure has its title in several lines.
                width = int(12 * figure.get_figwidth())
                figure.suptitle("\n".join(textwrap.wrap(words, width)))
                plots.save(figure, self.directory, name)


def main_numbers(name: str, analysis: Analysis, rows: pd.DataFrame) -> pd.DataFrame:
    """The main numbers of an analysis, as mean and spread over seeds.

    Returns:
      `COLUMNS`; 'std' is the sample standard deviation over the seeds that have the
      number, 0 of a single one. Empty of an analysis that has none.
    """
    found = [
        (name, quantity, *net[:2], value)
        for net, own in rows.groupby(NET)
        for quantity, value in analysis.main_numbers(own)
    ]
    table = pd.DataFrame(found, columns=[*COLUMNS[:4], "value"]).dropna()
    values = table.groupby(COLUMNS[:4], sort=False)["value"]
    means = values.agg(seeds="size", mean="mean", std="std").reset_index()
    return means.assign(std=means["std"].where(means["seeds"] > 1, 0.0))


def write_summary(
    numbers: Sequence[pd.DataFrame], chosen: Iterable[str], directory: pathlib.Path
) -> None:
    """The main numbers, beside those of analyses that were not asked for now."""
    path, tables = directory / "summary.csv", [pd.DataFrame(columns=COLUMNS), *numbers]
    if path.exists():
        before = pd.read_csv(path, dtype=str, keep_default_na=False)
        tables.insert(0, before[~before["analysis"].isin(list(chosen))])
    write_csv(pd.concat([table.astype(object) for table in tables]), path)


def write_csv(table: pd.DataFrame, path: pathlib.Path) -> None:
    """Write a table in one go."""
    text = table.to_csv(index=False, na_rep="nan", lineterminator="\n")
    write_atomically(path, text.encode())
    print(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return launch.run(body, define, __doc__, argv, config="why_resnets_work_digits.py")


if __name__ == "__main__":
    sys.exit(main())
