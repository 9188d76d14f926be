"""Layer responses: how strongly each layer responds (He et al. 2015, figure 7)."""

from collections.abc import Iterator

import pandas as pd

from cnn_jax.analysis import responses
from cnn_jax.analysis.net import Net
from cnn_jax.plots import curves
from cnn_jax.plots.style import name_lines, style_of
from cnn_jax.report import claims, page, tables
from experiments.why_resnets_work import analysis, papers


def measure(net: Net, images: int) -> Iterator[analysis.Row]:
    """Measure the standard deviation of each layer's response on training images.

    Args:
      net: a trained net.
      images: number of training images, 0 for all.

    Yields:
      A row for each layer: 'layer' (from 1, forward order), 'name', 'std'.
    """
    data = net.batches("train", images)
    found = responses.standard_deviations(net.model, net.variables, data)
    for number, (name, std) in enumerate(found.items(), start=1):
        yield {"layer": number, "name": name, "std": std}


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Plot layer responses in forward order, sorted, and over depth."""
    ranks = rows.groupby(tables.NET)["std"].rank(method="first", ascending=False)
    rows = rows.assign(rank=ranks)
    figure, panels = curves.family_panels(
        [
            (rows, "layer", "3x3 layer, from the input", "in order"),
            (rows, "rank", "3x3 layers, largest first", "sorted"),
        ],
        *("std", "std of the response", styles),
        log="y",
        more_columns=1,
    )
    wholes = rows.groupby(tables.NET)["std"].agg(["mean", "median"]).reset_index()
    families = sorted(set(rows["family"]))
    looks = {family: style_of(family, families) for family in families}
    for panel, y in zip(panels[:, -1], ("mean", "median"), strict=True):
        panel.set_yscale("log")
        lines = curves.draw_lines(
            panel, wholes, "family", "depth", y, looks, markersize=4
        )
        panel.set_title(f"{y} over layers")
        panel.set_xlabel("depth (weight layers)")
        panel.set_xticks(sorted(set(rows["depth"])))
        curves.plain_numbers(panel.yaxis)
    name_lines(figure, list(lines.values()), families)
    figure.suptitle(f"layer responses on the training set, {curves.seeds_of(rows)}")
    return {"responses": figure}


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """Standard deviation of layer responses."""
    stds = tables.per_net(rows, "std")
    return page.Section(
        title="Layer responses",
        question="How strongly does each layer act?",
        method="Standard deviation of the output of each 3x3 layer after batch norm, "
        "before the non-linearity and the addition, in evaluation mode.",
        sources=[papers.HE],
        figures=[
            page.Figure(
                "responses",
                "Standard deviation of the responses over layers, in order and sorted. "
                "One line per depth; plain and residual nets side by side.",
                "Layer responses, arranged as in figure 7 of He et al.",
            )
        ],
        tables=[
            tables.group_table(
                rows,
                "Standard deviation of responses, mean over layers",
                {"std": (stds, tables.spread)},
            )
        ],
        findings=[
            claims.residual_below_plain(
                "Residual nets have weaker responses than their plain twins.", stds
            ),
            claims.ascending(
                "Deeper residual nets have weaker responses than shallower ones "
                "(listed from the deepest).",
                tables.of_family(stds, "residual"),
                from_the_last=True,
            ),
        ],
        remark="The paper makes both claims for nets of 20 to 110 layers, trained to "
        "the end of a long schedule. A plain net that has barely trained keeps the "
        "responses of its initialisation.",
    )


def summary(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Mean and median over layers of the response's standard deviation."""
    yield "std of responses, mean over layers", rows["std"].mean()
    yield "std of responses, median over layers", rows["std"].median()


ANALYSIS = analysis.Analysis(measure, section, draw, summary)
