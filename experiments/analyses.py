"""The analyses of `experiments.why_resnets_work`: from trained nets to rows.

A piece is one analysis of one shape (family and depth, all its seeds). Its rows
are kept in a file beside a note of what they were made of, so that a command that
was stopped goes on, and nothing is measured twice.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnn_jax import names, plots_analysis
from cnn_jax.analysis import trained
from cnn_jax.train import checkpoint
from cnn_jax.train.program import Program
from experiments import measures
from experiments.measures.rows import Row

Settings = Mapping[str, Any]

# Arguments of a measurement that are no settings.
SUPPLIED = ("nets", "directory")


@dataclasses.dataclass(frozen=True)
class Shape:
    """The runs of a family and depth, which differ by their seed alone.

    Attributes:
      family: the arm.
      depth: weight layers.
      runs: their directories.
    """

    family: str
    depth: int
    runs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What is measured, on which nets, and how it is drawn.

    Attributes:
      measure: (nets of the seeds of a shape, **settings) to rows; its keyword
        arguments are the schema of the config's section.
      draw: (rows of all shapes, directory, title) to figures.
      wants: whether a shape is looked at, by the shape and the settings.
      of_nets: whether it looks at trained nets at all.
      has_files: ``measure`` also takes the 'directory' for files of its own.
      long: takes longer than other analyses, so it is begun first.
      version: raised when its code comes to other rows than before, so that rows
        which are kept from then are measured again.
    """

    measure: Callable[..., list[Row]]
    draw: Callable[[Sequence[Row], pathlib.Path, str], None]
    wants: Callable[[Shape, Settings], bool] = lambda shape, settings: True
    of_nets: bool = True
    has_files: bool = False
    long: bool = False
    version: int = 1


ANALYSES: dict[str, Analysis] = {
    "insertion": Analysis(
        measures.measure_insertion,
        plots_analysis.insertion,
        wants=lambda shape, settings: (
            (shape.family, shape.depth) == (settings["family"], settings["depth"])
        ),
        long=True,
        version=2,
    ),
    "gradients": Analysis(measures.measure_gradients, plots_analysis.gradients),
    "shattered": Analysis(measures.measure_shattered, plots_analysis.shattered),
    "grid": Analysis(measures.measure_grid, plots_analysis.grid, of_nets=False),
    "responses": Analysis(measures.measure_responses, plots_analysis.responses),
    "lesions": Analysis(measures.measure_lesions, plots_analysis.lesions),
    "paths": Analysis(
        measures.measure_paths,
        plots_analysis.paths,
        wants=lambda shape, settings: (
            shape.family == "residual" and shape.depth in settings["depths"]
        ),
        long=True,
    ),
    "linearity": Analysis(measures.measure_linearity, plots_analysis.linearity),
    "stochastic_depth": Analysis(
        measures.measure_stochastic_depth,
        plots_analysis.stochastic_depth,
        wants=lambda shape, settings: (
            (shape.family, shape.depth) == ("residual", settings["depth"])
        ),
        long=True,
    ),
    "landscape": Analysis(
        measures.measure_landscape,
        plots_analysis.landscape,
        wants=lambda shape, settings: shape.depth in settings["depths"],
        has_files=True,
        long=True,
    ),
    "one_by_one": Analysis(
        measures.measure_one_by_one,
        lambda rows, directory, title: None,  # its section has tables alone
        of_nets=False,
    ),
}


@dataclasses.dataclass(frozen=True)
class Piece:
    """One analysis of one shape.

    Attributes:
      analysis: a key of `ANALYSES`.
      shape: what is looked at.
      settings: the analysis's section of the config.
      directory: where rows are kept.
    """

    analysis: str
    shape: Shape
    settings: Settings = dataclasses.field(hash=False)
    directory: pathlib.Path

    @property
    def name(self) -> str:
        """Its file's name, without the suffix."""
        if not ANALYSES[self.analysis].of_nets:
            return self.analysis
        return f"{self.analysis}-{self.shape.family}-{self.shape.depth}"

    def kept(self) -> list[Row] | None:
        """The rows, if this version made them of these runs with these settings."""
        try:
            found = json.loads((self.directory / f"{self.name}.json").read_text())
            made_of, rows = found["made_of"], found["rows"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # none, or not ours
        return rows if made_of == self.made_of() else None

    def made_of(self) -> dict[str, Any]:
        """What the rows depend on, as JSON gives it back."""
        runs = {run: trained.fingerprint(run) for run in self.shape.runs}
        found = {
            "version": ANALYSES[self.analysis].version,
            "settings": dict(self.settings),
            "runs": runs,
        }
        return json.loads(json.dumps(found))

    def make(self) -> list[Row]:
        """Measure, keep the rows and return them.

        Raises:
          ConfigError: a directory holds no run.
          CheckpointError: a run has no whole checkpoint.
        """
        made_of = self.made_of()
        runs = self.shape.runs
        nets = [trained.load(run, program_of(runs)) for run in runs]
        labelled = [
            dataclasses.replace(net, family=self.shape.family, depth=self.shape.depth)
            for net in nets
        ]
        analysis = ANALYSES[self.analysis]
        self.directory.mkdir(parents=True, exist_ok=True)
        place = {"directory": self.directory} if analysis.has_files else {}
        rows = analysis.measure(labelled, **place, **self.settings)
        text = json.dumps({"made_of": made_of, "rows": rows})
        path = self.directory / f"{self.name}.json"
        checkpoint.write_atomically(path, text.encode())
        return rows


def pieces(
    config: Settings, chosen: Sequence[str], shapes: Sequence[Shape], kept: pathlib.Path
) -> list[Piece]:
    """What is to be done, the longest first and the pieces of a shape together.

    Args:
      config: a section for each analysis.
      chosen: which of them.
      shapes: nets to look at.
      kept: where rows are kept.

    Returns:
      A piece for each analysis and each shape that it wants.
    """
    found = [
        Piece(name, shape, config[name], kept)
        for shape in shapes
        for name in chosen
        if ANALYSES[name].of_nets and ANALYSES[name].wants(shape, config[name])
    ]
    nothing = Shape("", 0, ())
    found += [
        Piece(name, nothing, config[name], kept)
        for name in chosen
        if not ANALYSES[name].of_nets
    ]
    return sorted(
        found, key=lambda piece: (not ANALYSES[piece.analysis].long, -piece.shape.depth)
    )


@functools.lru_cache(maxsize=1)
def program_of(runs: tuple[str, ...]) -> Program:
    """The program of a shape; the pieces of a shape follow one another."""
    return trained.program_of(runs[0])


def check(config: Mapping[str, Any], only: Sequence[str]) -> list[str]:
    """The analyses to do, if the config has all that they need.

    Args:
      config: a section for each analysis.
      only: names of some; none for all that the config has.

    Returns:
      Names, in the order of `ANALYSES`.

    Raises:
      ConfigError: an unknown name, or a section with a wrong key or type.
    """
    for name in only:
        if name not in ANALYSES:
            raise names.choices("analysis", name, list(ANALYSES))
        if name not in config:
            raise names.ConfigError(f"the config has no section {name!r}")
    for name in config:
        if name not in ("name", "study", *ANALYSES):
            raise names.choices("key of the config", name, ["study", *ANALYSES])
    chosen = [name for name in ANALYSES if name in (only or config)]
    for name in chosen:
        measure = ANALYSES[name].measure
        names.check_fields(f"analysis {name!r}", measure, config[name], SUPPLIED)
    if "insertion" in chosen:
        steps = list(config["insertion"]["steps"])
        if steps != sorted({0, *steps}):
            raise names.ConfigError(f"insertion.steps {steps} must ascend from 0")
    return chosen
