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

import numpy as np

from cnn_jax import names, plots_analysis, plots_landscape
from cnn_jax.analysis import gradients, landscape, responses, trained
from cnn_jax.analysis.trained import Net
from cnn_jax.train import checkpoint
from cnn_jax.train.program import Program

Row = dict[str, Any]
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
      wants: whether a shape is looked at, by its shape and the settings.
      has_files: ``measure`` also takes the 'directory' for files of its own.
    """

    measure: Callable[..., list[Row]]
    draw: Callable[[Sequence[Row], pathlib.Path, str], None]
    wants: Callable[[Shape, Settings], bool] = lambda shape, settings: True
    has_files: bool = False


def measure_gradients(
    nets: Sequence[Net],
    batches: int,
    along_training: Sequence[int],
    snapshots: Sequence[int],
) -> list[Row]:
    """Gradient norm of each layer before and after training, or along it.

    Args:
      nets: the seeds of a shape, trained.
      batches: training batches that norms are averaged over.
      along_training: depths whose training is repeated to look in between.
      snapshots: the steps to look at then.

    Returns:
      A row for each seed, step and layer, see `gradients.norms`.
    """
    rows = []
    for net in nets:
        if net.depth in along_training:
            steps = sorted({0, *(s for s in snapshots if s <= net.step), net.step})
            states = gradients.snapshots(net.program, net.seed, steps)
        else:
            states = iter([net.at_initialisation(), net])
        data = net.train_batches(batches)
        for state in states:
            found = gradients.norms(
                state.model, state.variables, data, state.program.loss
            )
            rows += [{**state.label, **row} for row in found]
    return rows


def measure_responses(nets: Sequence[Net], images: int) -> list[Row]:
    """Standard deviation of each layer's response on training images.

    Args:
      nets: the seeds of a shape, trained.
      images: training images that are looked at, 0 for all.

    Returns:
      A row for each seed and layer: 'layer' (from 1, forward order), 'name', 'std'.
    """
    rows = []
    for net in nets:
        data = net.batches("train", images)
        found = responses.standard_deviations(net.model, net.variables, data)
        for number, (name, std) in enumerate(found.items(), start=1):
            rows.append({**net.label, "layer": number, "name": name, "std": std})
    return rows


def measure_landscape(
    nets: Sequence[Net],
    directory: pathlib.Path,
    depths: Sequence[int],
    points: int,
    extent: float,
    images: int,
    seed: int,
) -> list[Row]:
    """Training loss and error on a square grid around each net.

    Args:
      nets: the seeds of a shape, trained.
      directory: receives a file of each net's landscape with its directions.
      depths: which are looked at.
      points: of an axis, odd, so that the net itself is one of them.
      extent: the axes go from minus this to this (1 in the paper).
      images: training images that the loss is a mean over, 0 for all.
      seed: of the directions, the same for all nets.

    Returns:
      A row for each seed and point: 'first' and 'second' (its coordinates), 'loss'
      and 'error'.
    """
    del depths
    axis = np.linspace(-extent, extent, points)
    rows = []
    for net in nets:
        found = landscape.explore(
            landscape.EvaluationLoss(net.model, net.program.loss, net.program.errors),
            net.variables["params"],
            (axis, axis),
            seed,
            (
                net.variables["batch_stats"],
                landscape.stack(net.batches("train", images)),
            ),
        )
        name = f"landscape-{net.family}-{net.depth}-seed{net.seed}.npz"
        landscape.save(found, directory / name)
        rows += [
            {
                **net.label,
                "first": float(axis[down]),
                "second": float(axis[across]),
                "loss": float(found.values["loss"][down, across]),
                "error": float(found.values["error"][down, across]),
            }
            for down, across in np.ndindex(points, points)
        ]
    return rows


ANALYSES: dict[str, Analysis] = {
    "gradients": Analysis(measure_gradients, plots_analysis.gradients),
    "responses": Analysis(measure_responses, plots_analysis.responses),
    "landscape": Analysis(
        measure_landscape,
        plots_landscape.landscapes,
        wants=lambda shape, settings: shape.depth in settings["depths"],
        has_files=True,
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
        return f"{self.analysis}-{self.shape.family}-{self.shape.depth}"

    def kept(self) -> list[Row] | None:
        """The rows, if they have been made of these runs with these settings."""
        try:
            found = json.loads((self.directory / f"{self.name}.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return found["rows"] if found["made_of"] == self.made_of() else None

    def made_of(self) -> dict[str, Any]:
        """What the rows depend on, as JSON gives it back."""
        runs = {run: trained.fingerprint(run) for run in self.shape.runs}
        return json.loads(json.dumps({"settings": dict(self.settings), "runs": runs}))

    def make(self) -> list[Row]:
        """Measure, keep the rows and return them.

        Raises:
          ConfigError: a directory holds no run.
          CheckpointError: a run has no whole checkpoint.
        """
        made_of = self.made_of()
        program = program_of(self.shape.runs)
        nets = [trained.load(run, program) for run in self.shape.runs]
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
    return chosen
