"""The section on 1x1 convolutions."""

import pathlib

from cnn_jax.report import Finding, Section, Table
from experiments.numbers import (
    below,
    decided,
    per_seed,
    percent,
)
from experiments.sections.papers import LIN
from experiments.sections.rows import Rows, Settings, of


def one_by_one(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """What 1x1 convolutions save and add."""
    del directory
    savings = [row for row in rows if row["kind"] == "shrink"]
    learned = [row for row in rows if row["kind"] == "exclusive_or"]
    linear = per_seed(of(learned, layers="linear"), "error")
    deeper = per_seed(of(learned, layers="with 1x1 and ReLU"), "error")
    count = len({row["seed"] for row in learned})
    return Section(
        name="one_by_one",
        title="1x1 convolutions",
        question="What do the 1x1 convolutions of bottlenecks and of Network in "
        "Network save, and what do they add?",
        method=f"Multiply-accumulates (MACs) of a convolution from "
        f"{settings['channels']} to {settings['width']} channels on a "
        f"{settings['size']} x {settings['size']} map, counted in the traced program, "
        f"with and without a 1x1 convolution to {settings['shrink']} channels before "
        "it; and the task of telling, at each pixel, whether exactly one of two "
        "channels is on, which no linear map computes.",
        sources=[LIN],
        tables=[
            Table(
                "Shrinking channels first. Parameters and MACs are exact; times are a "
                "median ratio of runs in turn on this machine.",
                ("layers", "parameters", "MACs", "MACs saved", "times faster"),
                [
                    cells
                    for row in savings
                    for cells in (
                        (
                            f"{row['kernel']}x{row['kernel']}",
                            f"{row['direct_parameters']:,}",
                            f"{row['direct_macs']:,}",
                            "",
                            "",
                        ),
                        (
                            f"1x1 to {settings['shrink']}, "
                            f"{row['kernel']}x{row['kernel']}",
                            f"{row['parameters']:,}",
                            f"{row['macs']:,}",
                            f"{100 * (1 - row['macs'] / row['direct_macs']):.1f} %",
                            f"{row['time_ratio']:.1f}",
                        ),
                    )
                ],
            ),
            Table(
                "Wrong pixels of the exclusive or (%); mean ± sample standard "
                f"deviation of {count} seeds.",
                ("net", "wrong pixels"),
                [
                    ("3x3, then a linear classifier", percent(linear)),
                    (
                        "3x3, 1x1 of as many channels and ReLU, classifier",
                        percent(deeper),
                    ),
                ],
            ),
        ],
        findings=decided(
            Finding(
                "The 1x1 convolution before it saves more than half of the "
                "multiply-accumulates of each convolution.",
                all(row["macs"] < row["direct_macs"] / 2 for row in savings),
                "; ".join(
                    f"{row['kernel']}x{row['kernel']}: {row['macs']:,} instead of "
                    f"{row['direct_macs']:,}"
                    for row in savings
                )
                + ".",
            ),
            below(
                "With a 1x1 convolution and ReLU the exclusive or is learned better.",
                {"wrong pixels (%)": (deeper, linear)},
                percent,
            ),
        ),
    )
