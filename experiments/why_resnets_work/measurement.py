"""Measurements: the rows of one analysis and one group, kept on disk.

A file holds the rows and a record of what they depend on. A stopped command can thus
resume, and nothing is measured twice.
"""

import dataclasses
import functools
import json
import pathlib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax import names
from cnn_jax.analysis import trained
from cnn_jax.names import ConfigError
from cnn_jax.training.checkpoint import CheckpointError
from cnn_jax.training.files import write_atomically
from experiments.why_resnets_work import registry
from experiments.why_resnets_work.analysis import Group, Row, Settings

NO_NETS = Group("", 0, ())
# The program of a group; its measurements are consecutive.
program_of = functools.lru_cache(maxsize=1)(trained.program_of)


class MeasurementFailed(Exception):
    """Some nets could not be measured; the tracebacks have been printed."""


def reason_of(error: Exception) -> str:
    """An unexpected error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One analysis of one group: a task for `cnn_jax.study.pool`.

    Attributes:
      analysis: name of a section of the config.
      group: the nets to measure.
      section: the section of the config, see `registry.resolve`.
      directory: directory of the stored rows.
      data_dir: current directory of the runs' data; '' if it has not moved.
    """

    analysis: str
    group: Group
    section: Settings = dataclasses.field(hash=False)
    directory: pathlib.Path
    data_dir: str = ""

    @property
    def name(self) -> str:
        """Name of the file of rows, without suffix."""
        return self.analysis + (f"-{self.group.name}" if self.group.runs else "")

    @property
    def path(self) -> pathlib.Path:
        """The file of rows."""
        return self.directory / f"{self.name}.json"

    def cached(self) -> list[Row] | None:
        """The stored rows, if this version made them from these runs and settings."""
        try:
            found = json.loads(self.path.read_text())
            made_of, rows = found["made_of"], found["rows"]
            for key in ("runs", "data"):  # earlier versions wrote paths
                runs = made_of[key].items()
                made_of[key] = {run.rpartition("/")[2]: value for run, value in runs}
        except (OSError, ValueError, KeyError, TypeError):
            return None  # no file, or one of another format
        return rows if made_of == self.made_of() else None

    def made_of(self) -> dict[str, Any]:
        """Everything that the rows depend on, in the form that JSON restores."""
        analysis, settings = registry.resolve(self.analysis, self.section)
        runs = {pathlib.Path(run).resolve().name: run for run in self.group.runs}
        found = {
            "version": analysis.version,
            "settings": settings,
            "runs": {name: trained.fingerprint(run) for name, run in runs.items()},
            "data": {name: trained.data_fingerprint(run) for name, run in runs.items()},
        } | ({"analysis": self.section["name"]} if "name" in self.section else {})
        return json.loads(json.dumps(found))

    def compute(self) -> list[Row] | str:
        """Measure, store the rows and return them; or the reason of a failure.

        Raises:
          ConfigError: a directory holds no run, or the data differs from the run's.
          CheckpointError: a run has no complete checkpoint.
        """
        made_of, runs = self.made_of(), self.group.runs
        analysis, settings = registry.resolve(self.analysis, self.section)
        program = program_of(runs[0], self.data_dir) if runs else None
        kind = {"family": self.group.family, "depth": self.group.depth}
        nets = [dataclasses.replace(trained.load(run, program), **kind) for run in runs]
        self.directory.mkdir(parents=True, exist_ok=True)
        if "directory" in names.parameters(analysis.measure):
            settings = {**settings, "directory": self.directory}
        try:
            rows = [
                {**net.label, **row}
                for net in nets
                for row in analysis.measure(net, **settings)
            ]
            if not analysis.of_nets:
                rows = list(analysis.measure(**settings))
        except (ConfigError, CheckpointError, OSError):
            raise
        except Exception as error:  # affects only this analysis
            traceback.print_exc()
            return f"{self.name}: {reason_of(error)}"
        text = json.dumps({"made_of": made_of, "rows": rows})
        write_atomically(self.path, text.encode())
        return rows


def measurements(
    config: Mapping[str, Any],
    chosen: Sequence[str],
    groups: Mapping[tuple[str, int], Sequence[str]],
    directory: pathlib.Path,
    data_dir: str = "",
) -> list[Measurement]:
    """A measurement for each chosen analysis and each group that it applies to.

    ``groups`` are runs by family and depth, see `cnn_jax.study.groups`. The longest
    measurements come first, and those of a group stand together.
    """
    found = {name: registry.resolve(name, config[name]) for name in chosen}
    nets = [Group(*key, tuple(runs)) for key, runs in groups.items()]
    pairs = [
        (name, group)
        for group in (*nets, NO_NETS)
        for name, (analysis, settings) in found.items()
        if analysis.of_nets == bool(group.runs) and analysis.wants(group, settings)
    ]
    pairs.sort(key=lambda pair: (not found[pair[0]][0].long, -pair[1].depth))
    return [
        Measurement(name, group, config[name], directory, data_dir)
        for name, group in pairs
    ]
