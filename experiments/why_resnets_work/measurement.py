"""Measurements: the rows of one analysis and one group, kept on disk.

Rows are kept in a file beside a note of what they were made of, so that a command
that was stopped resumes, and nothing is measured twice.
"""

import dataclasses
import functools
import json
import pathlib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.analysis import trained
from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint
from cnn_jax.training.checkpoint import CheckpointError
from cnn_jax.training.program import Program
from experiments.why_resnets_work import registry
from experiments.why_resnets_work.analysis import Group, Row, Settings

NO_NETS = Group("", 0, ())


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a measurement has no rows.

    Attributes:
      reason: a line.
    """

    reason: str


def reason_of(error: Exception) -> str:
    """An unforeseen error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One analysis of one group.

    Attributes:
      analysis: the name of a section of the config.
      group: what is looked at.
      section: of the config, see `registry.resolve`.
      directory: where rows are kept.
      data_dir: where the runs' data is now; '' for where they had it.
    """

    analysis: str
    group: Group
    section: Settings = dataclasses.field(hash=False)
    directory: pathlib.Path
    data_dir: str = ""

    @property
    def name(self) -> str:
        """Its file's name, without the suffix."""
        nets = f"-{self.group.name}" if self.group.runs else ""
        return self.analysis + nets

    @property
    def path(self) -> pathlib.Path:
        """Its file."""
        return self.directory / f"{self.name}.json"

    def cached(self) -> list[Row] | None:
        """The rows, if this version made them of these runs with these settings."""
        try:
            found = json.loads(self.path.read_text())
            made_of, rows = found["made_of"], found["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            return None  # none, or not ours
        return rows if made_of == self.made_of() else None

    def made_of(self) -> dict[str, Any]:
        """What the rows depend on, as JSON gives it back."""
        analysis, settings = registry.resolve(self.analysis, self.section)
        found = {
            "version": analysis.version,
            "settings": settings,
            "runs": {run: trained.fingerprint(run) for run in self.group.runs},
            "data": {run: trained.data_fingerprint(run) for run in self.group.runs},
        }
        return json.loads(json.dumps(found))

    def compute(self) -> list[Row] | Failure:
        """Measure, keep the rows and return them; or a `Failure`, not kept.

        Raises:
          ConfigError: a directory holds no run, or the data is not the run's.
          CheckpointError: a run has no whole checkpoint.
        """
        made_of = self.made_of()
        analysis, settings = registry.resolve(self.analysis, self.section)
        runs = self.group.runs
        program = program_of(runs[0], self.data_dir) if runs else None
        names = {"family": self.group.family, "depth": self.group.depth}
        nets = [
            dataclasses.replace(trained.load(run, program), **names) for run in runs
        ]
        self.directory.mkdir(parents=True, exist_ok=True)
        place = {"directory": self.directory} if analysis.has_files else {}
        try:
            rows = analysis.measure(nets, **place, **settings)
        except (ConfigError, CheckpointError, OSError):
            raise
        except Exception as error:  # of this analysis; the others have their rows
            traceback.print_exc()
            return Failure(f"{self.name}: {reason_of(error)}")
        text = json.dumps({"made_of": made_of, "rows": rows})
        checkpoint.write_atomically(self.path, text.encode())
        return rows


def measurements(
    config: Mapping[str, Any],
    chosen: Sequence[str],
    groups: Sequence[Group],
    directory: pathlib.Path,
    data_dir: str = "",
) -> list[Measurement]:
    """What is to be done, the longest first and those of a group together.

    Args:
      config: a section for each analysis.
      chosen: which of them.
      groups: nets to look at.
      directory: where rows are kept.
      data_dir: see `Measurement`.

    Returns:
      A measurement for each analysis and each group that it wants.
    """
    found = {name: registry.resolve(name, config[name]) for name in chosen}
    pairs = [
        (name, group)
        for group in groups
        for name, (analysis, settings) in found.items()
        if analysis.of_nets and analysis.wants(group, settings)
    ]
    pairs += [(name, NO_NETS) for name in chosen if not found[name][0].of_nets]
    pairs.sort(key=lambda pair: (not found[pair[0]][0].long, -pair[1].depth))
    return [
        Measurement(name, group, config[name], directory, data_dir)
        for name, group in pairs
    ]


@functools.lru_cache(maxsize=1)
def program_of(run: str, data_dir: str) -> Program:
    """The program of a group; the measurements of a group follow one another."""
    return trained.program_of(run, data_dir)
