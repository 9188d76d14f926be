"""Sections on training error: the degradation, and inserted layers."""

import math
import pathlib
import statistics

from cnn_jax.report import Figure, Finding, Section, Table
from experiments.numbers import (
    Values,
    ascending,
    below,
    by,
    decided,
    per_seed,
    percent,
    short,
)
from experiments.sections.papers import HE
from experiments.sections.rows import (
    Rows,
    Settings,
    depth_table,
    depths_of,
    of,
    seeds,
    twins,
)


def degradation(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """Training and test error over depth, the effect that is to be explained."""
    del settings
    rows = of(rows, status="finished")
    plain = depths_of(rows, "plain", "clean_train_error")
    pairs = twins(rows, "clean_train_error")
    return Section(
        name="degradation",
        title="The effect: more layers, and a worse fit",
        question="Does a deeper plain net fit its own training set worse, and do "
        "identity shortcuts mend that?",
        method="Plain and residual twins have exactly the same parameters; only the "
        "addition differs. The training error is the clean one: evaluation mode, "
        "every training image once, at the last step, over several seeds.",
        sources=[HE],
        figures=[
            Figure(
                directory / "depth_vs_error",
                "Training and test error over depth. Plain nets get worse as they "
                "get deeper or not, residual nets beside them; the table has the "
                "numbers.",
                "Final error over depth; points are seeds.",
            )
        ],
        tables=[
            depth_table(
                rows,
                "Error at the last step (%)",
                {
                    "training error": lambda own: percent(
                        per_seed(own, "clean_train_error")
                    ),
                    "test error": lambda own: percent(per_seed(own, "test_error")),
                    "parameters": lambda own: f"{own[0]['parameters']:,}",
                },
            )
        ],
        findings=decided(
            ascending(
                "The training error of plain nets rises with depth.", plain, percent
            ),
            below(
                "No residual net has a higher training error than its plain twin.",
                pairs,
                percent,
                equal=True,
            ),
        ),
        remark="The paper trains on 32 x 32 photographs for 64,000 steps; what is "
        "trained here stands above, and in the configs below.",
    )


def insertion(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """Layers inserted into a trained net."""
    del settings
    first = rows[0]
    last = max(row["more_steps"] for row in rows)
    titles = {
        "none": "nothing inserted",
        "residual": "residual block, last BN scale zero",
        "plain_identity": "plain layers, made the identity",
        "plain_he": "plain layers, He-initialised",
    }
    cases = {
        (how, count, rate): own
        for (how, count, rate), own in by(rows, "how", "blocks", "rate").items()
    }

    def errors(how: str, count: int, rate: float, step: int) -> Values:
        return per_seed(of(cases[how, count, rate], more_steps=step), "train_error")

    def named(count: int, rate: float) -> str:
        return f"{2 * count} layers, rate {rate:g}"

    def largest(how: str, column: str) -> float:
        return max(row[column] for row in of(rows, how=how))

    places = sorted({(c, r) for how, c, r in cases if how == "residual"})
    later = {
        named(count, rate): (
            errors("residual", count, rate, last),
            errors("none", 0, rate, last),
        )
        for count, rate in places
    }
    # Within what seeds differ by anyway (the control's own spread).
    no_worse = all(
        statistics.fmean(own)
        <= statistics.fmean(control)
        + (statistics.stdev(control) if len(control) > 1 else math.nan)
        for own, control in later.values()
    )
    evidence = "; ".join(
        f"{case}: {percent(own)} against {percent(control)} of the control"
        for case, (own, control) in later.items()
    )
    he = {
        named(count, rate): (
            errors("none", 0, rate, 0),
            errors("plain_he", count, rate, 0),
        )
        for count, rate in places
        if ("plain_he", count, rate) in cases
    }
    order = list(titles)
    return Section(
        name="insertion",
        title="The identity is easy to learn",
        question="What do more layers do to a net that is trained already?",
        method=f"Layers are inserted in a trained {first['family']} net of "
        f"{first['depth']} layers, two a block: as residual blocks whose last scale of "
        "batch norm is zero (so that they are the identity), as plain layers whose "
        "kernels and batch norm are set to the identity, and as plain layers "
        "initialised as usual. Then training goes on. The control trains on with "
        "nothing inserted.",
        sources=[HE],
        figures=[
            Figure(
                directory / "insertion",
                "Training error against steps after the insertion, one line for each "
                "way of inserting, one panel for each number of layers and rate.",
                "Clean training error after the insertion; bands are one standard "
                "deviation.",
            )
        ],
        tables=[
            Table(
                f"Clean training error (%); {seeds(rows)}. Logits are those of the "
                "whole training set, over all seeds.",
                (
                    *("inserted", "layers", "rate", "at once"),
                    *(f"{last} steps later", "logits changed", "largest change"),
                ),
                [
                    (
                        titles[how],
                        str(2 * count),
                        f"{rate:g}",
                        percent(errors(how, count, rate, 0)),
                        percent(errors(how, count, rate, last)),
                        str(max(row["changed_logits"] for row in own)),
                        short(max(row["largest_change"] for row in own)),
                    )
                    for (how, count, rate), own in sorted(
                        cases.items(),
                        key=lambda item: (order.index(item[0][0]), item[0]),
                    )
                ],
            )
        ],
        findings=decided(
            Finding(
                "The residual insertion changes no bit of any logit.",
                largest("residual", "changed_logits") == 0,
                f"{largest('residual', 'changed_logits'):.0f} logits changed.",
            ),
            Finding(
                f"{last} steps later it has done no harm: its mean training error is "
                "at most one standard deviation above the control's.",
                no_worse if all(len(c) > 1 for _, c in later.values()) else None,
                f"{evidence}.",
            ),
            below(
                "Plain layers, initialised as usual, raise the training error at once.",
                he,
                percent,
            ),
        ),
    )
