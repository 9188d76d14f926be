"""Distance from the identity: how much a block changes its input."""

from collections.abc import Iterator

import pandas as pd

from cnn_jax.analysis import blocks, linearity
from cnn_jax.analysis.net import Net
from cnn_jax.plots import curves
from cnn_jax.report import claims, page, tables
from experiments.why_resnets_work import analysis, papers


def measure(net: Net, images: int) -> Iterator[analysis.Row]:
    """Measure the distance of blocks from the identity, on training images.

    Args:
      net: a trained net.
      images: number of training images, 0 for all.

    Yields:
      A row for each shape-preserving block: 'block' (from 1, among all blocks), 'name'
      and 'change' (NaN in a dead net, where the block's input is zero for every image).
    """
    sites = blocks.sites(net.model, net.variables, net.program.image_shape)
    numbers = {site.name: number for number, site in enumerate(sites, start=1)}
    data = net.batches("train", images)
    found = linearity.relative_changes(net.model, net.variables, data)
    for name, change in found.items():
        yield {"block": numbers[name], "name": name, "change": change}


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Plot the distance of each block from the identity."""
    lines = [(rows, "block", "block, from the input", "")]
    label = "‖output - input‖ / ‖input‖"
    figure, panels = curves.family_panels(
        lines, "change", label, styles, **curves.POINTS
    )
    panels[0][0].set_ylim(bottom=0)
    figure.suptitle(f"distance of blocks from the identity, {curves.seeds_of(rows)}")
    return {"linearity": figure}


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """How close blocks are to the identity."""
    changes = tables.per_net(rows, "change")
    return page.Section(
        title="Distance from the identity",
        question="How much does a block change its input?",
        method="Norm of (output - input) divided by the norm of the input, averaged "
        "over images, for blocks whose output has the shape of their input.",
        sources=[papers.HE],
        figures=[
            page.Figure(
                "linearity",
                "Relative change by each block over its position in the net. One line "
                "per depth; plain and residual nets side by side.",
                "Relative change of the signal by each block.",
            )
        ],
        tables=[
            tables.group_table(
                rows,
                "Relative change, mean over blocks",
                {"change": (changes, tables.spread)},
            )
        ],
        findings=[
            claims.residual_below_plain(
                "Residual blocks change their input less than plain ones.", changes
            ),
            claims.ascending(
                "The deeper the residual net, the less each block changes its input "
                "(listed from the deepest).",
                tables.of_family(changes, "residual"),
                from_the_last=True,
            ),
        ],
    )


def summary(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Mean relative change over blocks."""
    yield "relative change, mean over blocks", rows["change"].mean()


ANALYSIS = analysis.Analysis(measure, section, draw, summary)
