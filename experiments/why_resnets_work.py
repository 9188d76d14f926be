"""Why residual networks work: what trained plain and residual nets look like inside.

    python -m experiments.why_resnets_work [--study=DIR | --run=DIR] \\
        [--config=configs/why_resnets_work_digits.py] [--workdir=DIR] \\
        [--only=gradients,responses] [--workers=N]

Looks at the nets of a study (trained first, unless ``--study`` names one that is) or
at a single run. Writes a page of all of it (``report.html``), a CSV and figures (PNG
and SVG) of each analysis, and the main numbers of all (``summary.csv``) into
``runs/NAME`` by default, or ``why_resnets_work`` in the study or run looked at. What
is done is kept: the same command goes on after a stop.
"""

import argparse
import csv
import itertools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax import plots, report, study
from cnn_jax.analysis import trained
from cnn_jax.names import ConfigError
from cnn_jax.runtime import selfcheck
from cnn_jax.study import execution
from cnn_jax.train import config as run_config
from cnn_jax.train.run_directory import RunDirectory
from experiments import analyses, launch, summaries
from experiments.analyses import ANALYSES, Row, Shape
from experiments.pool import make_all
from experiments.progress import StudyProgress, counted
from experiments.sections import SECTIONS
from experiments.sections.page import page
from experiments.tables import write_csv


def define(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--workdir",
        default="",
        help="directory of the results; by default runs/NAME, or why_resnets_work "
        "under --study or --run",
    )
    parser.add_argument(
        "--study", default="", help="a trained study, instead of a new one"
    )
    parser.add_argument("--run", default="", help="a single run to look at")
    parser.add_argument(
        "--only",
        type=launch.listed(),
        default=[],
        help=f"some of: {', '.join(ANALYSES)}",
    )
    parser.add_argument(
        "--workers",
        type=launch.at_least(0),
        default=0,
        help="processes that work; 0 for one a core on CPU, one on a GPU or TPU",
    )


def body(values: argparse.Namespace) -> int:
    """Train what is not finished, measure what is not kept, write everything."""
    config = run_config.as_dict(values.config)
    chosen = analyses.check(config, values.only)
    if values.study and values.run:
        raise ConfigError("--study and --run exclude each other")
    directory = place(values, config["name"])
    selfcheck.check_backend()
    missing: list[str] = []
    if values.run:
        shapes = [shape_of(values.run)]
    else:
        trained_study = pathlib.Path(values.study or directory / "study")
        if not values.study:
            train(config["study"], trained_study, values.workers)
        shapes = shapes_of(trained_study)
        missing = left_out(trained_study)
    if missing:
        print(f"left out: {', '.join(missing)}", file=sys.stderr)
    pieces = analyses.pieces(config, chosen, shapes, directory / "analyses")
    with counted("analyses", len(pieces)) as progress:
        found = make_all(pieces, values.workers, progress)
    rows: dict[str, list[Row]] = {name: [] for name in chosen}
    for piece, of_piece in zip(pieces, found, strict=True):
        rows[piece.analysis] += of_piece
    for name in chosen:
        write(name, rows[name], directory, config["name"])
    write_summary(rows, directory)
    if not values.run:
        rows = {
            "degradation": study_rows(trained_study, directory, config["name"]),
            **rows,
        }
    trained_here = not (values.run or values.study)
    write_report(rows, config, shapes, directory, missing, trained_here)
    return 0


def place(values: argparse.Namespace, name: str) -> pathlib.Path:
    """Where the results go: those of different nets never into one directory."""
    looked_at = values.study or values.run
    if values.workdir or not looked_at:
        return pathlib.Path(values.workdir or f"runs/{name}")
    return pathlib.Path(looked_at) / "why_resnets_work"


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


def shapes_of(directory: pathlib.Path) -> list[Shape]:
    """The shapes of a study's finished runs.

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
    return [Shape(*key, tuple(runs)) for key, runs in found.items()]


def left_out(directory: pathlib.Path) -> list[str]:
    """Runs of a study that are not looked at, as 'plain-56-seed1 (diverged)'.

    Any family, depth and seed that the study has are expected together.
    """
    table = study.load(directory)
    status = dict(table["status"])
    shapes = [sorted(set(table[key])) for key in ("family", "depth", "seed")]
    expected = [f"{f}-{d}-seed{s}" for f, d, s in itertools.product(*shapes)]
    return [
        f"{name} ({status.get(name, 'not finished')})"
        for name in expected
        if status.get(name) != "finished"
    ]


def shape_of(run: str) -> Shape:
    """A single run as a shape of its own."""
    family, depth = trained.kind(analyses.program_of((run,)))
    return Shape(family, depth, (run,))


def write(name: str, rows: Sequence[Row], directory: pathlib.Path, title: str) -> None:
    """The table and the figures of an analysis, from its rows."""
    if not rows:
        print(f"{name}: none of the nets is looked at", file=sys.stderr)
        return
    ordered = sorted(rows, key=lambda row: (row["family"], row["depth"], row["seed"]))
    write_csv(directory / f"{name}.csv", tuple(ordered[0]), ordered)
    ANALYSES[name].draw(ordered, directory, title)
    print(directory / f"{name}.csv")


def write_summary(rows: Mapping[str, Sequence[Row]], directory: pathlib.Path) -> None:
    """The main numbers, beside those of analyses that were not asked for now."""
    path, found = directory / "summary.csv", []
    if path.exists():
        with open(path) as file:
            found = [r for r in csv.DictReader(file) if r["analysis"] not in rows]
    for name in rows:
        found += summaries.summarize(name, rows[name])
    write_csv(path, summaries.COLUMNS, found)
    print(path)


def study_rows(
    study_directory: pathlib.Path, directory: pathlib.Path, title: str
) -> list[Row]:
    """What the study's runs came to; the plot of it is drawn in ``directory``."""
    table = study.load(study_directory)
    held_out = study.held_out_of(study_directory)
    plots.depth_vs_error(table, directory, title, held_out)
    return table.to_dict("records")


def write_report(
    rows: Mapping[str, Sequence[Row]],
    config: Mapping[str, Any],
    shapes: Sequence[Shape],
    directory: pathlib.Path,
    missing: Sequence[str],
    trained_here: bool,
) -> None:
    """The page of the analyses that were asked for now."""
    made = [
        section(rows[name], directory, config.get(name, {}))
        for name, section in SECTIONS.items()
        if rows.get(name)
    ]
    nets = [
        (shape, RunDirectory(run).config() or {})
        for shape in shapes
        for run in shape.runs
    ]
    labels = [
        {"family": shape.family, "depth": shape.depth, "seed": run["seed"]}
        for shape, run in nets
    ]
    path = directory / "report.html"
    runs = [run for _, run in nets]
    report.write(page(config, made, runs, labels, missing, trained_here), path)
    print(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return launch.run(body, define, __doc__, argv, config="why_resnets_work_digits.py")


if __name__ == "__main__":
    sys.exit(main())
