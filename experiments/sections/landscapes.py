"""The section on the loss around trained nets."""

import pathlib

import numpy as np

from cnn_jax.analysis import landscape as landscapes
from cnn_jax.plots_analysis.landscapes import grid
from cnn_jax.report import Figure, Section
from experiments.numbers import (
    below,
    decided,
    per_seed,
    percent,
    spread,
)
from experiments.sections.papers import LI
from experiments.sections.rows import Rows, Settings, depth_table, swapped, twins


def array(rows: Rows, value: str = "loss") -> np.ndarray:
    """A column of the rows of one net as its grid; what is not finite is huge."""
    huge = float(np.finfo(np.float32).max)
    found = grid(rows, value)[2]
    return np.nan_to_num(found, nan=huge, posinf=huge)


def centre(rows: Rows) -> float:
    """The loss of the net itself, in the middle of its grid (nats)."""
    found = array(rows)
    return float(found[found.shape[0] // 2, found.shape[1] // 2])


def rise(rows: Rows) -> float:
    """Power of ten of the median loss at the grid's edge (nats)."""
    found = array(rows)
    edge = np.concatenate([found[0], found[-1], found[1:-1, 0], found[1:-1, -1]])
    return float(np.log10(max(np.median(edge), 1e-12)))


def area(rows: Rows) -> float:
    """Share of the grid with a training error of at most a half."""
    return float((array(rows, "error") <= 0.5).mean())


def minima(rows: Rows) -> float:
    """Local minima among the inner points."""
    return float(landscapes.local_minima(array(rows)))


def landscape(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """The loss around trained nets."""

    points, images = settings["points"], settings["images"]
    names = {"surface": "as surfaces", "contours": "from above"}
    return Section(
        name="landscape",
        title="Loss landscape",
        question="What does the loss look like around the nets that training found?",
        method=f"Training loss on a grid of {points} x {points} points along two "
        f"random directions, up to {settings['extent']:g} filter norms from the net; "
        "mean over "
        + (f"the first {images} training images" if images else "the training set")
        + ". In a direction each filter is as long as the net's own; biases and batch "
        "norm's parameters stay, and batch norm keeps the trained net's running "
        "statistics. The directions are the same for all nets and lie, with the "
        "values, in files beside the tables.",
        sources=[LI],
        figures=[
            *(
                Figure(
                    directory / f"landscape_{name}",
                    f"The loss around plain and residual nets, {how}, on one "
                    "logarithmic scale. The table has numbers of its shape.",
                    f"Training loss around the nets of the first seed, {how}; "
                    "logarithmic, one scale for all.",
                )
                for name, how in names.items()
            ),
            Figure(
                directory / "landscape_sections",
                "Loss and error along the first direction, a line for each seed, "
                "plain and residual.",
                "Sections along the first direction, every seed.",
            ),
        ],
        tables=[
            depth_table(
                rows,
                "Shape of the landscape: loss of the net (nats), power of ten of "
                "the loss at the grid's edge (median), share of the grid with a "
                "training error of at most 50 %, local minima among the inner points",
                {
                    "loss": lambda own: spread(per_seed(own, centre)),
                    "rise": lambda own: spread(per_seed(own, rise)),
                    "area": lambda own: f"{percent(per_seed(own, area))} %",
                    "minima": lambda own: spread(per_seed(own, minima)),
                },
            )
        ],
        findings=decided(
            below(
                "At the grid's edge the loss around residual nets is lower than "
                "around plain ones (powers of ten).",
                twins(rows, rise),
            ),
            below(
                "The region where most images are still read is larger around residual "
                "nets.",
                swapped(twins(rows, area)),
                lambda values: f"{percent(values)} %",
            ),
            below(
                "Residual landscapes have no more local minima than plain ones.",
                twins(rows, minima),
                equal=True,
            ),
        ),
        remark="Li et al. draw 51 x 51 points and the whole training set of nets that "
        "were trained for 300 epochs. A plain net that training hardly moved has a "
        "flat floor near the loss of guessing, 2.3 nats for ten classes.",
    )
