"""Path lengths: which paths carry the gradient (Veit et al. 2016, figure 6)."""

from collections.abc import Iterator, Sequence

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cnn_jax.analysis import blocks, lesions
from cnn_jax.analysis.net import Net
from cnn_jax.plots import curves
from cnn_jax.report import claims, page, tables
from experiments.why_resnets_work import analysis, papers


def measure(
    net: Net, depths: Sequence[int], images: int, draws: int
) -> Iterator[analysis.Row]:
    """Measure the gradient along paths of each length, and the share of such paths.

    Args:
      net: a trained residual net.
      depths: depths to measure (nets of other depths are not passed).
      images: number of training images of the loss; a whole batch if it has fewer.
      draws: number of random paths of each length.

    Yields:
      A row for each length: 'length', 'share' (of all paths), 'gradient'
      (norm at the input, mean over paths) and 'contribution' (their product).
    """
    sites = blocks.sites(net.model, net.variables, net.program.image_shape)
    batch = jax.tree.map(lambda leaf: leaf[:images], net.train_batches(1)[0])
    random = np.random.default_rng(net.seed)
    for length, share in enumerate(map(float, lesions.path_lengths(len(sites)))):
        norms = []
        alike = length in (0, len(sites))  # only one path has this length
        for _ in range(1 if alike else draws):
            through = np.zeros(len(sites))
            through[random.choice(len(sites), length, replace=False)] = 1
            norm = lesions.path_gradient(
                net.model, net.variables, batch, net.program.loss, through
            )
            norms.append(norm)
        gradient = float(np.mean(norms))
        row = {"length": length, "share": share, "gradient": gradient}
        yield {**row, "contribution": share * gradient}


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Plot the number of paths by length, their gradient and the product of both."""
    whole = rows.groupby(tables.NET)["contribution"].transform("sum")
    rows = rows.assign(part=rows["contribution"] / whole.where(whole > 0))
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.3))
    # A gradient that underflows to zero counts as missing.
    panels[1].set_yscale("log")
    labels = {
        "share": "share of paths",
        "gradient": "gradient norm at the input",
        "part": "share of gradient",
    }
    for panel, (y, label) in zip(panels, labels.items(), strict=True):
        lines = curves.draw_lines(panel, rows, "depth", "length", y, styles)
        panel.set_xlabel("path length (branches)")
        panel.set_ylabel(label)
    curves.name_values(figure, lines, "layers")
    figure.suptitle(f"paths through residual nets, {curves.seeds_of(rows)}")
    return {"paths": figure}


def mean_length(rows: pd.DataFrame, weight: str) -> float:
    """Mean path length of a net, weighted by a column."""
    return tables.ratio((rows["length"] * rows[weight]).sum(), rows[weight].sum())


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """Gradient along paths of each length."""
    every = tables.per_net(rows, lambda own: mean_length(own, "share"))
    weighted = tables.per_net(rows, lambda own: mean_length(own, "contribution"))
    return page.Section(
        title="Path lengths",
        question="Which paths through a residual net carry the gradient?",
        method="Each block doubles the number of paths, so path lengths are binomially "
        "distributed. For random paths of each length: the norm of the gradient that "
        "reaches the input along that path alone. This norm times the share of paths "
        "of that length is their contribution.",
        sources=[papers.VEIT],
        figures=[
            page.Figure(
                "paths",
                "Over the path length: the share of paths, the gradient norm along one "
                "path, and the product of the two.",
                "Paths of trained residual nets by length.",
            )
        ],
        tables=[
            tables.group_table(
                rows,
                "Mean path length, in branches",
                {
                    # the same for all seeds of a depth
                    "of all paths": (every, lambda own: tables.short(own.iloc[0])),
                    "weighted by gradient": (weighted, tables.spread),
                },
            )
        ],
        findings=[
            claims.below(
                "The paths that carry the gradient are shorter than the average path.",
                weighted.droplevel("family"),
                every.droplevel("family"),
            )
        ],
    )


def summary(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Mean length of all paths, and of paths weighted by the gradient they carry."""
    for name, weight in (("all paths", "share"), ("gradient", "contribution")):
        yield f"mean path length, {name}", mean_length(rows, weight)


ANALYSIS = analysis.Analysis(
    *(measure, section, draw, summary),
    wants=lambda group, settings: (
        group.family == "residual" and group.depth in settings["depths"]
    ),
    long=True,
)
