"""Lesions: how much depends on a single block (Veit et al. 2016, figures 3 to 5)."""

from collections.abc import Iterator, Sequence

import pandas as pd

from cnn_jax.analysis import blocks, lesions
from cnn_jax.analysis.net import Net
from cnn_jax.plots import curves
from cnn_jax.report import claims, page, tables
from experiments.why_resnets_work import analysis, papers


def measure(
    net: Net, images: int, removed: Sequence[int], swaps: Sequence[int], draws: int
) -> Iterator[analysis.Row]:
    """Measure test error with blocks removed or exchanged.

    Args:
      net: a trained net.
      images: number of test images, 0 for all.
      removed: numbers of blocks to remove at random; numbers larger than a net's
        removable blocks are skipped.
      swaps: numbers of random exchanges of two blocks of the same shape.
      draws: number of random choices for each of those numbers.

    Yields:
      Rows of a 'kind': 'intact', 'one' (one row for each removable block), 'several'
      and 'exchanged'; with 'count' (of blocks removed or exchanges), 'block' (from 1;
      0 for the other kinds), 'draw', 'kendall_tau' and 'error'.
    """
    sites = blocks.sites(net.model, net.variables, net.program.image_shape)
    data = list(net.batches("test", images))
    cases = lesions.cases(sites, net.seed, removed, swaps, draws)
    for kind, keep, order, columns in cases:
        variables = lesions.exchanged(net.variables, sites, order)
        error = lesions.error_without(
            net.model, variables, data, keep, net.program.errors
        )
        row = {"kind": kind, "count": 0, "block": 0, "draw": 0, **columns}
        yield {**row, "kendall_tau": lesions.kendall_tau(order), "error": error}


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Test error with blocks removed or exchanged."""
    rows = rows.assign(percent=100 * rows["error"])
    intact = tables.of(rows, kind="intact")
    exchanged = tables.of(rows, kind="exchanged")
    # All draws of a count share one abscissa.
    groups = exchanged.groupby(["family", "depth", "count"])["kendall_tau"]
    exchanged = exchanged.assign(kendall_tau=groups.transform("mean"))
    # These lines start at the intact net, with zero blocks removed or exchanged.
    several = pd.concat([intact, tables.of(rows, kind="several")])
    exchanged = pd.concat([intact.assign(kendall_tau=1.0), exchanged])
    one = tables.of(rows, kind="one")
    first = "block removed, from the input"
    figure, panels = curves.family_panels(
        [
            (one, "block", first, "one block removed"),
            (several, "count", "blocks removed", "several blocks removed"),
            (exchanged, "kendall_tau", "Kendall's tau", "blocks exchanged"),
        ],
        *("percent", "test error (%)", styles),
        **curves.POINTS,
    )
    panels[0][0].set_ylim(0, 100)
    for panel in panels[2]:
        panel.invert_xaxis()
        panel.locator_params(axis="x", nbins=6)
    figure.suptitle(f"lesions, {curves.seeds_of(rows)}")
    return {"lesions": figure}


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """Test error with blocks removed or exchanged."""
    intact = tables.per_net(tables.of(rows, kind="intact"), "error")
    one = tables.per_net(tables.of(rows, kind="one"), "error")
    damage = (one - intact).reindex(intact.index)  # NaN if no block is removable
    return page.Section(
        title="Lesions",
        question="How much depends on a single block?",
        method="Test error of the trained nets after removing each block alone, "
        "removing several at random, or swapping blocks. Removing a residual block "
        "means removing its branch and keeping its shortcut. A plain block is removed "
        "entirely, if its output has the shape of its input.",
        sources=[papers.VEIT],
        figures=[
            page.Figure(
                "lesions",
                "Test error over the removed block, over the number of removed blocks, "
                "and over the disorder of the blocks; plain and residual nets side by "
                "side.",
                "Test error with blocks removed or exchanged.",
            )
        ],
        tables=[
            tables.group_table(
                rows,
                "Test error (%)",
                {
                    "intact": (intact, tables.percent),
                    "one block removed": (one, tables.percent),
                    "rise": (damage, tables.percent),
                },
            )
        ],
        findings=[
            claims.residual_below_plain(
                "Removing a block harms a residual net less than its plain twin.",
                damage,
                tables.percent,
            ),
        ],
        remark="A plain net at chance level cannot get worse. The rise is meaningful "
        "only if the intact net has a low error.",
    )


def summary(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Test error (%) of the intact net and of each kind of lesion."""
    names = {
        "intact": "intact",
        "one": "one block removed, mean over blocks",
        "several": "{} blocks removed",
        "exchanged": "blocks exchanged {} times",
    }
    for (kind, count), own in rows.groupby(["kind", "count"], sort=False):
        yield f"test error (%), {names[kind].format(count)}", 100 * own["error"].mean()


ANALYSIS = analysis.Analysis(measure, section, draw, summary)
