"""The effect to be explained: training and held-out error over depth.

This section analyses no nets: its rows are the results of the study's runs.
"""

import pathlib

import pandas as pd

from cnn_jax import plots
from cnn_jax.report import claims, page, tables
from experiments.why_resnets_work import papers


def draw(
    rows: pd.DataFrame, held_out: str, directory: pathlib.Path, title: str
) -> page.Section:
    """Write the figure of a study to ``directory`` and return its section."""
    plots.depth_vs_error(rows, directory, title, held_out)
    return section(rows, held_out)


def section(rows: pd.DataFrame, held_out: str = "test") -> page.Section:
    """Training and held-out error over depth, from the table of `study.load`."""
    rows = tables.of(rows, status="finished")
    errors, tests, parameters = (
        tables.per_net(rows.astype({column: float}), column)
        for column in ("clean_train_error", "test_error", "parameters")
    )
    return page.Section(
        title="The effect: more layers, worse fit",
        question="Does a deeper plain net fit its training set worse, and do identity "
        "shortcuts fix that?",
        method="A plain net and its residual twin have exactly the same parameters; "
        "only the addition differs. The training error is the clean one: of training "
        "images without augmentation, in evaluation mode, after the last step.",
        sources=[papers.HE],
        figures=[
            page.Figure(
                "depth_vs_error",
                f"Training and {held_out} error over depth, for plain and residual "
                "nets. The table lists the numbers.",
                "Final error over depth. Each point is one seed.",
            )
        ],
        tables=[
            tables.group_table(
                rows,
                "Error after the last step (%)",
                {
                    "training error": (errors, tables.percent),
                    f"{held_out} error": (tests, tables.percent),
                    "parameters": (parameters, lambda own: f"{own.iloc[0]:,.0f}"),
                },
            )
        ],
        findings=[
            claims.ascending(
                "The training error of plain nets rises with depth.",
                tables.of_family(errors, "plain"),
                tables.percent,
            ),
            claims.residual_below_plain(
                "Averaged over the seeds, no residual net has a higher training error "
                "than its plain twin.",
                errors,
                tables.percent,
                equal=True,
            ),
        ],
        remark="The paper trains on 32 x 32 photographs for 64,000 steps. The top of "
        "the page and the configs below describe the training here.",
    )
