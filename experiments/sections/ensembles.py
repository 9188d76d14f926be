"""Sections on nets as ensembles: lesions, paths, stochastic depth."""

import pathlib
import statistics
from collections.abc import Callable

import numpy as np

from cnn_jax.report import Figure, Section, Table
from experiments.numbers import (
    Row,
    Values,
    below,
    by,
    decided,
    per_seed,
    percent,
    short,
    spread,
)
from experiments.sections.papers import HUANG, VEIT
from experiments.sections.rows import (
    Rows,
    Settings,
    counted,
    depth_table,
    of,
    seeds,
    twins,
)


def lesions(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """Test error with blocks removed or exchanged."""
    del settings

    def damage(own: list[Row]) -> float:
        [intact] = of(own, kind="intact")
        one = of(own, kind="one")
        return statistics.fmean(row["error"] for row in one) - intact["error"]

    def error(kind: str) -> Callable[[list[Row]], str]:
        return lambda own: percent(per_seed(of(own, kind=kind), "error"))

    return Section(
        name="lesions",
        title="Lesions",
        question="How much depends on a single block?",
        method="Test error of the trained nets with one block removed (each in turn), "
        "several at random, or blocks exchanged. Of a residual block the branch is "
        "removed and the shortcut stays; a plain block goes as a whole, where it keeps "
        "the shape of its map.",
        sources=[VEIT],
        figures=[
            Figure(
                directory / "lesions",
                "Test error over the block that is removed, over the number removed "
                "and over the disorder of blocks, plain beside residual.",
                "Test error with blocks removed or exchanged.",
            )
        ],
        tables=[
            depth_table(
                rows,
                "Test error (%)",
                {
                    "intact": error("intact"),
                    "one block removed": error("one"),
                    "rise": lambda own: percent(per_seed(own, damage)),
                },
            )
        ],
        findings=decided(
            below(
                "Removing a block costs the residual net less than its plain twin.",
                twins(rows, damage),
                percent,
            ),
        ),
        remark="A plain net whose test error is that of guessing cannot lose more: the "
        "rise says something only where the intact net is good.",
    )


def paths(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """Gradient along paths of each length."""
    del settings

    def mean_length(weight: str) -> Callable[[list[Row]], float]:
        return lambda own: float(
            np.average([r["length"] for r in own], weights=[r[weight] for r in own])
        )

    cases = {
        f"{depth} layers": (
            per_seed(own, mean_length("contribution")),
            per_seed(own, mean_length("share")),
        )
        for depth, own in by(rows, "depth").items()
    }
    return Section(
        name="paths",
        title="Path lengths",
        question="Which paths through a residual net carry the gradient?",
        method="Each block doubles the paths, so their lengths are binomial. For "
        "random paths of each length, the norm of the gradient that reaches the input "
        "along that path alone; times the share of such paths, its contribution.",
        sources=[VEIT],
        figures=[
            Figure(
                directory / "paths",
                "Over the path length: the share of paths, the gradient norm along "
                "one, and the product of both.",
                "Paths of trained residual nets by length.",
            )
        ],
        tables=[
            Table(
                f"Mean length of a path, in branches; {seeds(rows)}.",
                ("net", *counted(rows), "of all paths", "weighted by gradient"),
                [
                    (
                        f"residual, {case}",
                        *(str(len(every)) for _ in counted(rows)),
                        short(every[0]),
                        spread(weighted),
                    )
                    for case, (weighted, every) in cases.items()
                ],
            )
        ],
        findings=decided(
            below(
                "The paths that carry the gradient are shorter than the average path.",
                cases,
            )
        ),
    )


def stochastic_depth(
    rows: Rows, directory: pathlib.Path, settings: Settings
) -> Section:
    """Lesions of nets trained with and without stochastic depth."""
    del settings
    rates = sorted({row["death_rate"] for row in rows})
    depth = rows[0]["depth"]
    counts = sorted({row["removed"] for row in rows})

    def error(rate: float, count: int) -> Values:
        return per_seed(of(rows, death_rate=rate, removed=count), "error")

    def rise(rate: float, count: int) -> Values:
        return [
            after - before
            for after, before in zip(error(rate, count), error(rate, 0), strict=True)
        ]

    trained, plain = max(rates), min(rates)
    return Section(
        name="stochastic_depth",
        title="The ensemble of depths",
        question="Does a net that was trained at many depths depend less on a block?",
        method=f"The residual net of {depth} layers is trained again with stochastic "
        f"depth: every step leaves out each branch at random, the last one with "
        f"probability {trained:g}, earlier ones linearly less, and evaluation adds the "
        "expected branch. Then blocks are removed at random from both.",
        sources=[HUANG, VEIT],
        figures=[
            Figure(
                directory / "stochastic_depth",
                "Test error over the number of blocks removed, with and without "
                "stochastic depth in training.",
                "Test error with blocks removed at random.",
            )
        ],
        tables=[
            Table(
                f"Test error (%) of residual nets of {depth} layers; {seeds(rows)}.",
                ("blocks removed", *(f"death rate {rate:g}" for rate in rates)),
                [
                    (str(count), *(percent(error(rate, count)) for rate in rates))
                    for count in counts
                ],
            )
        ],
        findings=decided(
            below(
                "Removing blocks raises the error of the net with stochastic depth "
                "less.",
                {
                    f"{count} removed": (rise(trained, count), rise(plain, count))
                    for count in counts
                    if count
                },
                percent,
            ),
            below(
                "Intact, the net with stochastic depth has the lower test error.",
                {f"death rate {trained:g}": (error(trained, 0), error(plain, 0))},
                percent,
            ),
        ),
        remark="Huang et al. train for hundreds of epochs, in which a net that is on "
        "average shorter catches up; a schedule of a few epochs is against it.",
    )
