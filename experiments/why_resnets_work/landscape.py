"""The loss landscape around trained nets (Li et al. 2018, figure 1)."""

import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from cnn_jax.analysis import landscape, landscape_file, landscape_shape
from cnn_jax.analysis.net import Net
from cnn_jax.names import ConfigError
from cnn_jax.plots import curves
from cnn_jax.plots import landscape as plots
from cnn_jax.report import claims, page, tables
from experiments.why_resnets_work import analysis, papers

HUGE = float(np.finfo(np.float32).max)


def measure(
    net: Net,
    directory: pathlib.Path,
    depths: Sequence[int],
    points: int,
    extent: float,
    images: int,
    seed: int,
) -> Iterator[analysis.Row]:
    """Measure training loss and error on a square grid around a net.

    Args:
      net: a trained net.
      directory: receives a file with the landscape and its directions.
      depths: depths to measure (nets of other depths are not passed).
      points: points per axis, odd, so that the net itself is one of them.
      extent: the axes go from ``-extent`` to ``extent`` (1 in the paper).
      images: training images that the loss is averaged over, 0 for all.
      seed: random seed of the directions, the same for all nets.

    Yields:
      A row for each point: 'first' and 'second' (its coordinates), 'loss' and 'error'.
    """
    axis = np.linspace(-extent, extent, points)
    found = landscape.explore(
        landscape.EvaluationLoss(net.model, net.program.loss, net.program.errors),
        net.variables["params"],
        (axis, axis),
        seed,
        (net.variables["batch_stats"], landscape.stack(net.batches("train", images))),
    )
    name = f"landscape-{net.family}-{net.depth}-seed{net.seed}.npz"
    landscape_file.save(found, directory / name)
    for down, across in np.ndindex(points, points):
        yield {
            "first": float(axis[down]),
            "second": float(axis[across]),
            "loss": float(found.values["loss"][down, across]),
            "error": float(found.values["error"][down, across]),
        }


def check(settings: analysis.Settings) -> None:
    """Refuse grids without a centre point or without an area."""
    if settings["points"] < 3 or settings["points"] % 2 == 0:
        raise ConfigError(
            "landscape.points must be odd and at least 3, so that the net is in the "
            f"middle of the grid; got {settings['points']}"
        )
    if not 0 < settings["extent"] < float("inf"):
        raise ConfigError(
            "landscape.extent must be positive and finite (1 in the paper), got "
            f"{settings['extent']:g}"
        )


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Plot surfaces and contours around the first seeds, and sections of all seeds."""
    nets = dict(iter(rows.groupby(["depth", "family"])))
    firsts = {key: own[own["seed"] == own["seed"].min()] for key, own in nets.items()}
    seeds = sorted({own["seed"].min() for own in nets.values()})
    around = f"around the nets of seed {', '.join(map(str, seeds))}"
    surface, contours = plots.surface_and_contours(firsts)
    surface.suptitle(f"training loss (nats) {around}")
    contours.suptitle(f"training loss {around}")
    sections = plots.sections(nets)
    count = curves.seeds_of(rows).rpartition(" of ")[2]
    sections.suptitle(f"section of the landscape, {count}")
    return {
        "landscape_surface": surface,
        "landscape_contours": contours,
        "landscape_sections": sections,
    }


def finite(rows: pd.DataFrame, value: str = "loss") -> np.ndarray:
    """A column of one net's rows as a grid, with non-finite values made huge."""
    return np.nan_to_num(plots.grid_of(rows, value).to_numpy(), nan=HUGE, posinf=HUGE)


# Numbers of one net.
SHAPE: dict[str, Callable[[pd.DataFrame], float]] = {
    "loss of the net (nats)": lambda rows: landscape_shape.centre(finite(rows)),
    "power of ten of the loss at the grid's edge, median": lambda rows: (
        landscape_shape.edge_power(finite(rows))
    ),
    "share of the grid with an error of at most half": lambda rows: (
        landscape_shape.share_below(finite(rows, "error"), 0.5)
    ),
    "local minima of the grid": lambda rows: landscape_shape.local_minima(finite(rows)),
}


def percent(values: Iterable[float]) -> str:
    """Fractions of the grid, formatted with a percent sign."""
    return f"{tables.percent(values)} %"


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """The loss around trained nets."""
    points, images = settings["points"], settings["images"]
    names = {"surface": "as surfaces", "contours": "as contours"}
    losses, rises, areas, counts = (tables.per_net(rows, f) for f in SHAPE.values())
    return page.Section(
        title="Loss landscape",
        question="What does the loss look like around the trained nets?",
        method=f"Training loss on a grid of {points} x {points} points along two "
        f"random directions, up to {settings['extent']:g} filter norms from the net, "
        "averaged over "
        + (f"the first {images} training images" if images else "the training set")
        + ". Each filter of a direction has the norm of the net's own filter. Biases "
        "and batch-norm parameters stay fixed, and batch norm uses the trained net's "
        "running statistics. Nets of one depth share the noise of their directions. "
        "The directions and the losses are saved next to the tables.",
        sources=[papers.LI],
        figures=[
            *(
                page.Figure(
                    f"landscape_{name}",
                    f"The loss around plain and residual nets, {how}, on a shared "
                    "logarithmic scale. The table quantifies its shape.",
                    f"Training loss around the nets of the first seed, {how}, on a "
                    "shared logarithmic scale.",
                )
                for name, how in names.items()
            ),
            page.Figure(
                "landscape_sections",
                "Loss and error of plain and residual nets along the first direction. "
                "One line per seed.",
                "Sections along the first direction, for every seed.",
            ),
        ],
        tables=[
            tables.group_table(
                rows,
                "Shape of the landscape: loss of the net (nats), median log10 of the "
                "loss at the edge of the grid, share of the grid with a training error "
                "of at most 50 %, local minima among the inner points",
                {
                    "loss": (losses, tables.spread),
                    "rise": (rises, tables.spread),
                    "area": (areas, percent),
                    "minima": (counts, tables.spread),
                },
            )
        ],
        findings=[
            claims.residual_below_plain(
                "At the edge of the grid, the loss around residual nets is lower than "
                "around plain nets (log10).",
                rises,
            ),
            claims.residual_above_plain(
                "The region with a training error of at most 50 % is larger around "
                "residual nets.",
                areas,
                percent,
            ),
            claims.residual_below_plain(
                "Landscapes of residual nets have no more local minima than those of "
                "plain nets.",
                counts,
                equal=True,
            ),
        ],
        remark="Li et al. use 51 x 51 points, the whole training set, and nets that "
        "were trained for 300 epochs. A plain net that has barely trained has a flat "
        "landscape near the chance level of 2.3 nats for ten classes.",
    )


def summary(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Shape of the landscape around one net."""
    for name, value in SHAPE.items():
        yield name, value(rows)


ANALYSIS = analysis.Analysis(
    *(measure, section, draw, summary),
    wants=lambda group, settings: group.depth in settings["depths"],
    check=check,
    long=True,
)
