"""Train graph transformer networks to read lines of digits.

    python -m experiments.gtn [--config=configs/gtn_digits.py] [--workdir=DIR] \\
        [--config.seeds='(0,)'] [--plot_only]

For every seed, trains a recogniser of isolated digits, the over-segmentation system
that starts from that recogniser, and a space displacement network. Writes
``results.csv``, ``reading_errors`` and ``segmentation`` (PNG, SVG and PDF) to the
study's directory, ``runs/NAME`` by default. The same command resumes a stopped study.
If a run diverges, the results lack its seed and the exit status is 1. The command does
not repeat that run; delete its directory to try again.
"""

import argparse
import functools
import itertools
import json
import pathlib
import sys
from typing import Any

import jax.numpy as jnp
import pandas

from cnn_jax import names, study
from cnn_jax.analysis import trained
from cnn_jax.analysis.reading import Reader, explain
from cnn_jax.plots import reading as figures
from cnn_jax.report.tables import percent
from cnn_jax.study import execution, plan
from cnn_jax.study.progress import single_run
from cnn_jax.training import config as run_config
from cnn_jax.training import files
from cnn_jax.training.config_keys import differences
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from experiments import launch

STAGES = ("isolated", "system", "displacement")
KEYS = ("name", "seeds", *STAGES)
# The systems compared: the stage whose weights a row uses, and the row's name.
SYSTEMS = {
    "isolated": "isolated digits, then Viterbi",
    "isolated_normalized": "the same, scores normalised per piece",
    "system": "trained through the graph",
    "displacement": "space displacement",
}
ERRORS = ("string_error", "digit_error")


class Pretrained(Program):
    """A program whose recogniser starts from trained weights, not random ones."""

    start: Any = None  # trained parameters of the recogniser

    def initial_state(self, seed: int) -> Any:
        """The seed's initial state, with the trained recogniser in it."""
        state = super().initial_state(seed)
        params = {**state.params, "recognizer": self.start}
        if self.ema_decay:
            state = state.replace(average={**state.average, "params": params})
        optimizer = self.optimizer(self.schedule(jnp.int32(0)))
        return state.replace(params=params, opt_state=optimizer.init(params))


def define(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add = parser.add_argument
    add("--workdir", default="", help="study directory (default: runs/NAME)")
    add("--plot_only", action="store_true", help="only rebuild the table and figures")


@launch.command(__doc__, define, config="gtn_digits.py")
def main(values: argparse.Namespace) -> int:
    """Train the unfinished runs, then write the table and the figures."""
    config = check(values.config)
    runs = Study(config, files.local(values.workdir or f"runs/{config['name']}"))
    unfinished = runs.unfinished()  # refuses others' runs before anything is written
    if not values.plot_only:
        launch.check_machine()
        runs.train(unfinished)
    if runs.seeds:
        runs.write()
    return 0 if len(runs.seeds) == len(config["seeds"]) else 1


def check(config: Any) -> dict[str, Any]:
    """Check the config and return it as plain dicts.

    Raises:
      ConfigError: a missing or unknown key, no or invalid seeds, or invalid runs.
    """
    config = run_config.as_dict(config)
    for key in (*config, *KEYS):
        if key not in KEYS:
            raise names.choices("key of the config", key, KEYS)
        if key not in config:
            raise names.ConfigError(f"the config lacks {key}")
    plan.check_integers("config.seeds", config["seeds"])
    for stage, seed in itertools.product(STAGES, config["seeds"]):
        plan.check_section(f"config.{stage}", config[stage])
        run_config.check({**config[stage], "seed": seed})
    for stage in ("system", "displacement"):
        loss = config[stage]["loss"]["name"]
        if loss != "strings":
            raise names.choices(f"config.{stage}.loss.name", loss, ["strings"])
    net, system = config["isolated"]["model"]["name"], config["system"]["model"]
    wanted = system.get("recognizer", "lenet5")
    if system["name"] == "gtn" and net != wanted:
        raise names.choices("config.isolated.model.name", net, [wanted])
    return config


class Study:
    """The runs of an experiment and their results.

    Args:
      config: see `check`.
      directory: the experiment's directory; the runs are in ``runs/STAGE-seedN``.
    """

    def __init__(self, config: dict[str, Any], directory: pathlib.Path):
        self.config, self.directory = config, directory
        self.seeds = tuple(config["seeds"])

    def run_directory(self, stage: str, seed: int) -> RunDirectory:
        """The directory of a run."""
        return RunDirectory(self.directory / "runs" / f"{stage}-seed{seed}")

    @functools.cache  # noqa: B019 - a study lives as long as the command
    def program(self, stage: str) -> Program:
        """The program of a stage, shared by all seeds."""
        return (Pretrained if stage == "system" else Program)(self.config[stage])

    def unfinished(self) -> list[tuple[str, int]]:
        """Stages and seeds to train; ConfigError for runs of other configs or data."""
        unfinished = []
        for stage, seed in itertools.product(STAGES, self.seeds):
            run = self.run_directory(stage, seed)
            run.check_config(config := {**self.config[stage], "seed": seed})
            result = run.finished(config)
            if result is None:
                unfinished.append((stage, seed))
            else:
                trained.check_data(run.path, self.program(stage).source)
                self.take(stage, seed, result)
        return [pair for pair in unfinished if pair[1] in self.seeds]

    @functools.cache  # noqa: B019
    def reader(self, stage: str, normalize: bool = False) -> Reader:
        """The reader for a stage's lines."""
        changes = {"model": {"normalize": True}} if normalize else {}
        return Reader(study.merge(self.config[stage], changes))

    def train(self, unfinished: list[tuple[str, int]]) -> None:
        """Train the runs of `unfinished`, with one compiled program per stage."""
        for stage, _ in unfinished:  # refuses invalid networks before any is trained
            self.program(stage)
        for stage, seed in unfinished:
            program = self.program(stage)
            if isinstance(program, Pretrained):
                if seed not in self.seeds:  # its recogniser diverged
                    continue
                program.start = self.params("isolated", seed)
            print(f"{stage}, seed {seed}", flush=True)
            with single_run(program.config) as report:
                run = self.run_directory(stage, seed)
                result = execution.fit_or_record(program, seed, run, report)
            self.take(stage, seed, result)

    def take(self, stage: str, seed: int, result: dict[str, Any]) -> None:
        """Report a run that diverged; the study goes without its seed."""
        if result["status"] == "diverged":
            why = f"diverged: {result['message']}"
            print(f"error: {stage}, seed {seed} {why}", file=sys.stderr)
            self.seeds = tuple(other for other in self.seeds if other != seed)

    def params(self, stage: str, seed: int) -> Any:
        """Trained parameters of a run; ConfigError if it is not finished."""
        run = self.run_directory(stage, seed)
        if run.result() is None:
            raise names.ConfigError(f"{run.path} contains no finished run")
        return trained.load(run.path).variables["params"]

    def write(self) -> None:
        """Write the results and figures, from the run directories alone."""
        pairs = itertools.product(SYSTEMS, self.seeds)
        table = pandas.DataFrame([self.row(*pair) for pair in pairs])
        study.write_table(table, results := self.directory / "results.csv")
        count = len(self.seeds)
        heading = "1 seed" if count == 1 else f"mean ± std of {count} seeds"
        title = f"{self.config['name']}: {heading}"
        figures.reading_errors(table, SYSTEMS, self.directory, title)
        isolated, trained = (self.params(stage, self.seeds[0]) for stage in STAGES[:2])
        seen = explain(self.reader("system"), [{"recognizer": isolated}, trained])
        titles = [SYSTEMS["isolated"], SYSTEMS["system"]]
        figures.segmentation(seen, titles, self.directory)
        print(f"\n{title}, error in percent\n{summary(table)}\n\n{results}")

    def row(self, system: str, seed: int) -> dict[str, Any]:
        """A system's errors on the test lines; measured once per run and reader."""
        stage = system.partition("_")[0]
        stored = self.run_directory(stage, seed).path / f"reading_{system}.json"
        reader = "displacement" if stage == "displacement" else "system"
        config = json.loads(json.dumps(self.config[reader]))
        found = json.loads(stored.read_text()) if stored.exists() else {}
        if differences(found.get("reader", {}), config):
            params = self.params(stage, seed)
            if stage == "isolated":
                params = {"recognizer": params}
            measure = self.reader(reader, system == "isolated_normalized")
            found = {"reader": config, "errors": measure(params)}
            files.write_atomically(stored, json.dumps(found).encode())
        return {"system": system, "seed": seed, **found["errors"]}


def summary(table: pandas.DataFrame) -> str:
    """Mean and sample standard deviation in percent; the mean alone for one seed."""
    means = table.groupby("system", sort=False)[list(ERRORS)].agg(percent)
    return means.rename(index=SYSTEMS).rename_axis(None).to_string()


if __name__ == "__main__":
    sys.exit(main())
