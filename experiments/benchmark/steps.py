"""Time a train step of each of a list of networks.

    python -m experiments.benchmark [--peer=torch,flax] [--json=speed.json] \\
        [--nets=resnet20@32x32x3,lenet5] [--batches=128,1] [--field=KEY=VALUE]

A step is a forward pass, loss, backward pass and SGD update (momentum, coupled weight
decay), on a batch that is already on the device. This package's step also gathers the
batch from a resident set and normalises its uint8 pixels. `--peer` runs the same
networks in other frameworks, alternating with this package. A ratio is the peer's time
over this package's: that of the medians over all rounds and, in brackets, the smallest
and the largest of a single round.

  torch           channels_last; cuDNN's search on a GPU; bfloat16 is autocast; as many
                  threads as there are cores. On a GPU it also adds 'torch.compile'
  torch.compile   the same, compiled
  flax            this package's modules with lax's own operations and autodiff's
                  gradients, in a step as flax's examples write it

FLOP/s count the model's work: 2 for each multiply-accumulate of a forward pass, times
3 for forward and backward, whatever the program really computes. Their share is
relative to jax's fastest large matrix product of that dtype in the same rounds. Peak
memory is the growth of the process after its imports, compilation included, or the
device's own count. The command times blocks of steps: median and range are over
blocks.
"""

import argparse
import importlib.util
from collections.abc import Sequence

import numpy as np

from cnn_jax import names
from experiments import launch, tables
from experiments.benchmark import report, rounds
from experiments.benchmark.case import Case
from experiments.benchmark.peers import PEERS
from experiments.benchmark.report import Row

NETS = (
    *("resnet20@32x32x3", "resnet56@32x32x3", "resnet20@8x8x1", "resnet56@8x8x1"),
    *("lenet5", "lenet5_modern", "vgg11@32x32x3", "nin_cifar"),
    *("alexnet_torchvision:16", "resnet18:16"),
)
FORMATS: dict[str, report.Format] = {
    "ms/step": ("step", 1e3, ".4g"),
    "range": ("step_range", 1e3, ".4g"),
    "images/s": ("images_per_second", 1, ",.0f"),
    "compile s": ("compile", 1, ".1f"),
    "peak MiB": ("memory", 2**-20, ",.0f"),
    "GFLOP/s": ("flops", 1e-9, ",.1f"),
    "of peak": ("share_of_peak", 1, ".1%"),
    "ratio": ("ratio", 1, ".2f"),
    "extremes": ("ratio_range", 1, ".2f"),
}
FIGURES = ("peak_flops", *(key for key, _, _ in FORMATS.values()))
# A step is a forward pass and a backward pass that costs twice as much; a
# multiply-accumulate is two operations.
OPERATIONS_PER_MAC = 2 * 3


def define(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add, positive = parser.add_argument, launch.at_least(1)
    nets = (
        "names listed by `python -m cnn_jax.models`, or resnetDEPTH and plainDEPTH for "
        "the CIFAR layout; append @HEIGHTxWIDTHxCHANNELS to replace the paper's image "
        "size (with 10 classes), :BATCH to replace the batch size"
    )
    add("--nets", type=launch.listed(), default=NETS, help=nets)
    peers = f"frameworks to compare with: {', '.join(PEERS)}"
    add("--peer", type=launch.listed(), default=[], help=peers)
    calls = "train steps per call; cnn_jax only"
    add("--steps_per_execution", type=launch.listed(positive), default=[1], help=calls)
    add("--rounds", type=positive, default=7, help="timed blocks per contender")
    seconds = "approximate length of a block, in seconds"
    add("--seconds", type=launch.at_least(0, float), default=1.0, help=seconds)
    report.define(parser)


@launch.command(__doc__, define)
def main(values: argparse.Namespace) -> None:
    """Check all cases, measure them one by one, then print the results."""
    cases = report.cases(values, values.nets, values.steps_per_execution)
    for word in values.peer:
        if word not in PEERS:
            raise names.choices("peer", word, list(PEERS))
        if word != "flax" and importlib.util.find_spec("torch") is None:
            raise names.ConfigError(
                f"--peer={word} needs torch: `pip install -e '.[peer]'` in the "
                "project's folder"
            )

    def rows_of(one: Case) -> list[Row]:
        peers = list(dict.fromkeys(values.peer))
        if "torch" in peers and one.platform == "gpu":
            peers = list(dict.fromkeys([*peers, "torch.compile"]))
        found = rounds.measure(one, peers, values.rounds, values.seconds)
        return step_rows(one, found)

    content = {"operations_per_mac": OPERATIONS_PER_MAC}
    rows = report.measure(values, "steps", cases, rows_of, **content)
    tables.show("train steps", [line(row) for row in rows])


def step_rows(one: Case, found: Sequence[rounds.Measurement]) -> list[Row]:
    """Rows of a case, one per contender (this package's first).

    Times are in seconds, memory in bytes, rates per second; missing values are None.
    Ratios and shares are also missing if this package failed during the rounds.
    """
    rows, ours, summary = [], found[0], one.summary()
    operations = OPERATIONS_PER_MAC * summary.macs * one.batch
    for measured in found:
        row: Row = {
            **report.row_of(one),
            **{"steps_per_execution": one.dispatch, "contender": measured.contender},
            **{"reason": measured.reason, "parameters": summary.parameters},
            **{"macs": summary.macs, **dict.fromkeys(FIGURES)},
        }
        rows.append(row)
        if measured.reason:
            continue
        seconds = measured.median
        row |= {
            "step": seconds,
            "step_range": [min(measured.seconds), max(measured.seconds)],
            "images_per_second": one.batch / seconds,
            "memory": measured.memory,
            "flops": operations / seconds,
        }
        if measured.contender != "torch":  # eager torch compiles nothing
            row["compile"] = measured.compile_seconds
        if not ours.reason:
            peak = max(ours.peak_rates)
            row |= {"peak_flops": peak, "share_of_peak": row["flops"] / peak}
            if measured is not ours:
                single = np.divide(measured.seconds, ours.seconds)
                row["ratio"] = seconds / ours.median
                row["ratio_range"] = [min(single), max(single)]
    return rows


def line(row: Row) -> dict[str, str]:
    """Format a row for printing."""
    cells = report.cells(row, FORMATS)
    if row["reason"]:
        cells["ms/step"] = "not measured"
    ratio, extremes = cells.pop("ratio"), cells.pop("extremes")
    return {
        **{"net": row["net"], "batch": str(row["batch"]), "type": row["dtype"]},
        "devices": str(row["devices"]),
        "steps/call": str(row["steps_per_execution"]),
        "by": row["contender"],
        **cells,
        "peer / cnn_jax": f"{ratio} ({extremes})" if ratio else row["reason"],
    }
