"""Run the degradation study: plain and residual nets over depths and seeds.

    python -m experiments.degradation [--config=configs/degradation_digits.py] \\
        [--workdir=DIR] [--config.depths='(8,20)'] [--workers=N] [--plot_only] \\
        [--launcher=slurm --workers=N --job=slurm_partition=gpu,gpus_per_node=1]

Writes ``results.csv``, ``depth_vs_error`` and ``training_curves`` (PNG, SVG, PDF)
to the study's directory, ``runs/NAME`` by default. The same command resumes a
stopped study and can add families, depths and seeds to an existing one. The exit
status is 1 if a run is not finished: it failed, it diverged, or another process is
training it.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnn_jax import plots, study
from cnn_jax.names import ConfigError
from cnn_jax.study import execution, jobs, plan
from cnn_jax.study.progress import StudyProgress
from cnn_jax.training import files
from cnn_jax.training.interrupt import Interrupted
from experiments import launch

if TYPE_CHECKING:
    import pandas


def define(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add = parser.add_argument
    add("--workdir", default="", help="study directory (default: runs/NAME)")
    launch.add_workers(parser)
    jobs = "train in --workers=N jobs, on a SLURM cluster or on this machine"
    add("--launcher", default="none", choices=("none", "local", "slurm"), help=jobs)
    minutes = "a job's minutes (default: 1440); a job that needs more is queued again"
    add("--job_minutes", type=launch.at_least(1), default=0, help=minutes)
    job = "further resources per job, by submitit's names: mem_gb=16,cpus_per_task=4"
    add("--job", type=launch.listed(), default=[], help=job)
    rebuild = "rebuild results.csv and the figures from the run directories"
    add("--plot_only", action="store_true", help=rebuild)


@launch.command(__doc__, define, config="degradation_digits.py")
def main(values: argparse.Namespace) -> int:
    """Train the unfinished runs, then write the table and the figures."""
    if values.launcher == "none" and (values.job or values.job_minutes):
        raise ConfigError("--job and --job_minutes need --launcher")
    title = plan.check(values.config)["name"]
    directory = files.local(values.workdir or f"runs/{title}")
    if values.plot_only:
        recorded = study.StudyDirectory(directory).config()
        table = write(directory, recorded["name"] if recorded else title)
        if table.empty:
            raise ConfigError(f"{directory} contains no runs of a study")
        return 0
    runs = study.StudyDirectory(directory).enter(values.config)
    try:
        with StudyProgress(runs) as progress:
            unfinished = train(values, runs, directory, progress)
    except (Interrupted, KeyboardInterrupt):
        if directory.is_dir():  # a stopped study shows its results so far
            try:
                write(directory, title)
            except Exception as error:  # the interruption matters more
                kind = type(error).__name__
                print(f"warning: cannot draw figures: {kind}: {error}", file=sys.stderr)
        raise
    status = write(directory, title)["status"]
    reasons = {e.run.name: f"{e.status}: {e.message}" for e in unfinished}
    missing = [run.name for run in runs if status.get(run.name) != "finished"]
    for name in missing:
        print(f"{name} {reasons.get(name, 'is not finished')}", file=sys.stderr)
    return 1 if missing else 0


def train(
    values: argparse.Namespace,
    runs: Sequence[study.Run],
    directory: pathlib.Path,
    report: execution.Report,
) -> list[execution.Event]:
    """Train the unfinished runs; return the last event of each that did not finish."""
    if values.launcher == "none":
        launch.check_machine(values.workers)
        return execution.execute(runs, directory, report, values.workers)
    if not values.workers:
        raise ConfigError(
            f"--launcher={values.launcher} needs --workers=N, the number of jobs"
        )
    resources = {"name": values.config.name, "timeout_min": values.job_minutes or 1440}
    resources |= jobs.parse_resources(values.job)
    return jobs.execute(
        runs, directory, report, values.workers, values.launcher, resources
    )


def write(directory: pathlib.Path, title: str) -> "pandas.DataFrame":
    """Write the results and figures of a study, from its run directories alone.

    Args:
      directory: the study's directory.
      title: the study's name.

    Returns:
      The study's runs, from `cnn_jax.study.load`.
    """
    from cnn_jax.report import tables  # pandas: not in training processes

    table = study.load(directory)
    if not table.empty:
        study.write_results(table, directory / "results.csv")
    finished = table[table["status"] == "finished"]
    if finished.empty:
        return table
    held_out = study.held_out_of(directory)
    logs = study.logs(directory)
    logs = logs[logs["run"].isin(finished.index)]
    plots.depth_vs_error(table, directory, title, held_out)
    plots.training_curves(logs, directory, title, held_out)
    print(f"\n{title}: {plots.seeds_of(finished)}, error in percent")
    errors = tables.errors(table, held_out)
    # names are left-aligned in a column as wide as the longest
    width = max(map(len, ["family", *errors["family"]]))
    align = {"family": f"{{:<{width}}}".format}
    print(errors.to_string(index=False, formatters=align))
    print(f"\n{directory / 'results.csv'}\n{directory / 'depth_vs_error.png'}")
    return table


if __name__ == "__main__":
    sys.exit(main())
