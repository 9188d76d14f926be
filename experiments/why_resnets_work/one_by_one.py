"""1x1 convolutions: what they save and what they add (Lin, Chen and Yan 2013)."""

from collections.abc import Iterator

import pandas as pd

from cnn_jax.analysis.one_by_one import (
    PixelClassifier,
    learn_exclusive_or,
    measure_saving,
)
from cnn_jax.models.summary import summarize
from cnn_jax.report import claims, page, tables
from experiments.why_resnets_work import analysis, papers

# The exclusive-or nets: name in the rows, and in the report.
LINEAR, DEEPER = "linear", "with 1x1 and ReLU"
NETS = {
    LINEAR: "3x3, classifier (linear)",
    DEEPER: "3x3, 1x1 with as many channels and ReLU, classifier",
}


def measure(
    size: int, channels: int, shrink: int, width: int, batch: int, seeds: int
) -> Iterator[analysis.Row]:
    """Measure what 1x1 convolutions save and add.

    Args:
      size: height and width of the input.
      channels: channels of the input.
      shrink: output channels of the 1x1 convolution.
      width: channels of the output.
      batch: images in a timed call.
      seeds: number of exclusive-or nets of each kind.

    Yields:
      Rows of a 'kind': 'shrink' for each kernel, with 'direct_parameters',
      'parameters', 'direct_macs', 'macs' and 'time_ratio'; and 'exclusive_or' for
      each seed, with 'layers', 'parameters', 'macs' and 'error'. Columns that do not
      apply to a kind are 0 or ''.
    """
    blank = {
        **{"family": "", "depth": 0, "seed": 0, "step": 0, "kind": "", "kernel": 0},
        **dict.fromkeys(("direct_parameters", "parameters", "direct_macs", "macs"), 0),
        **{"time_ratio": 0.0, "layers": "", "error": 0.0},
    }
    for kernel in (5, 3):
        found = measure_saving(kernel, size, channels, shrink, width, batch)
        columns = {
            "direct_parameters": found.direct.parameters,
            "parameters": found.shrunk.parameters,
            "direct_macs": found.direct.macs,
            "macs": found.shrunk.macs,
            "time_ratio": found.time_ratio,
        }
        yield {**blank, "kind": "shrink", "kernel": kernel, **columns}
    for added, layers in ((False, LINEAR), (True, DEEPER)):
        net = summarize(PixelClassifier(16, added), (16, 16, 2))
        columns = {"layers": layers, "parameters": net.parameters, "macs": net.macs}
        for seed in range(seeds):
            learned = {"seed": seed, "error": learn_exclusive_or(added, seed)}
            yield {**blank, "kind": "exclusive_or", **columns, **learned}


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """What 1x1 convolutions save and add."""
    savings = list(tables.of(rows, kind="shrink").itertuples())
    learned = tables.of(rows, kind="exclusive_or")
    errors = learned.groupby(["layers", "seed"])["error"].mean()
    shrunk = f"1x1 to {settings['shrink']}"
    cells = []
    for row in savings:
        kernel = f"{row.kernel}x{row.kernel}"
        saved = f"{100 * (1 - row.macs / row.direct_macs):.1f} %"
        direct = (f"{row.direct_parameters:,}", f"{row.direct_macs:,}", "", "")
        cells.append((kernel, *direct))
        counts = (f"{row.parameters:,}", f"{row.macs:,}")
        cells.append((f"{shrunk}, {kernel}", *counts, saved, f"{row.time_ratio:.1f}"))
    nets = []
    for layers, name in NETS.items():
        own = tables.of(learned, layers=layers)
        parameters, macs = own[["parameters", "macs"]].iloc[0]
        wrong = tables.percent(own["error"])
        nets.append((name, f"{parameters:,}", f"{macs:,}", wrong))
    return page.Section(
        title="1x1 convolutions",
        question="What do the 1x1 convolutions of bottlenecks and of Network in "
        "Network save, and what do they add?",
        method="First: the multiply-accumulates (MACs) of a convolution from "
        f"{settings['channels']} to {settings['width']} channels on an input of "
        f"{settings['size']} x {settings['size']} pixels, counted in the traced "
        "program, with and without a preceding 1x1 convolution to "
        f"{settings['shrink']} channels. Second: a task that no linear map solves, to "
        "decide at each pixel whether exactly one of two channels is on. A 1x1 "
        "convolution without ReLU would leave the net linear, so the comparison shows "
        "what a non-linear function across channels adds.",
        sources=[papers.LIN],
        tables=[
            page.Table(
                "Reducing the channels first. Parameters and MACs are exact; the "
                "speedup is the median ratio of alternating runs on this machine.",
                ("layers", "parameters", "MACs", "MACs saved", "speedup"),
                cells,
            ),
            page.Table(
                f"Wrong pixels in the exclusive or (%); {tables.seeds(learned)}.",
                ("net", "parameters", "MACs", "wrong pixels"),
                nets,
            ),
        ],
        findings=[
            page.Finding(
                "A preceding 1x1 convolution saves more than half of the "
                "multiply-accumulates of each convolution.",
                all(row.macs < row.direct_macs / 2 for row in savings),
                "; ".join(
                    f"{row.kernel}x{row.kernel}: {row.macs:,} instead of "
                    f"{row.direct_macs:,}"
                    for row in savings
                )
                + ".",
            ),
            claims.below(
                "The net with a 1x1 convolution and ReLU learns the exclusive or "
                "better than the linear net.",
                *(errors[DEEPER], errors[LINEAR]),
                *(tables.percent, "wrong pixels (%)"),
            ),
        ],
    )


ANALYSIS = analysis.Analysis(measure, section, version=2)
