"""How fast a train step is, for a list of networks.

    python -m experiments.benchmark [--peer=torch,flax] [--json=speed.json] \\
        [--nets=resnet20@32x32x3,lenet5] [--batches=128,1] [--field=KEY=VALUE]

A step is forward pass, loss, backward pass and the update of SGD (momentum,
coupled weight decay), on a batch that is on the device already; ours also gathers
the batch out of a resident set and normalises its uint8 pixels. `--peer` runs the
same networks in other frameworks, in turns with ours: ratios are the peer's time
over ours, medians over all rounds and, in brackets, the least and the largest of
a single round.

  torch           channels_last; on a GPU with cuDNN's search; bfloat16 is autocast;
                  as many threads as we have cores. On a GPU 'torch.compile' joins it
  torch.compile   the same, compiled
  flax            our modules with lax's own operations and autodiff's derivatives,
                  in a step as flax's examples write it

FLOP/s are those of the model: 2 for each multiply-accumulate of a forward pass,
times 3 for forward and backward, whatever is really computed. Their share is of
the fastest large matrix product of that type, jax's, in the same rounds. Peak memory is
what the process grew by after its imports, compiling included, or the device's
own count. Blocks of steps are timed, not steps: median and range are over blocks.
"""

import argparse
import importlib.util
from collections.abc import Sequence

from cnn_jax import names
from cnn_jax.models.summary import Summary
from experiments import launch, tables
from experiments.benchmark import report, rounds
from experiments.benchmark.case import Case
from experiments.benchmark.peers import PEERS
from experiments.benchmark.report import OPERATIONS_PER_MAC, Row

NETS = (
    *("resnet20@32x32x3", "resnet56@32x32x3", "resnet20@8x8x1", "resnet56@8x8x1"),
    *("lenet5", "lenet5_modern", "vgg11@32x32x3", "nin_cifar"),
    *("alexnet_torchvision:16", "resnet18:16"),
)
FIGURES = (
    *("step", "step_range", "images_per_second", "compile", "memory"),
    *("flops", "peak_flops", "share_of_peak", "ratio", "ratio_range"),
)


def define(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument(
        "--nets",
        type=launch.listed(),
        default=NETS,
        help="names of `python -m cnn_jax.models`, or resnetDEPTH and plainDEPTH of "
        "the CIFAR layout; with @HEIGHTxWIDTHxCHANNELS for images of another size "
        "than the paper's (those have 10 classes), with :BATCH for a batch of its own",
    )
    parser.add_argument(
        "--peer",
        type=launch.listed(),
        default=[],
        help="run in turns with ours: torch, torch.compile, flax",
    )
    parser.add_argument(
        "--steps_per_execution",
        type=launch.listed(launch.at_least(1)),
        default=[1],
        help="steps that the devices take in one call; ours only",
    )
    parser.add_argument(
        "--rounds",
        type=launch.at_least(1),
        default=7,
        help="blocks of each contender",
    )
    parser.add_argument(
        "--seconds",
        type=launch.at_least(0, float),
        default=1.0,
        help="length of a block, about",
    )
    report.define(parser)


def body(values: argparse.Namespace) -> int:
    """Check everything, then measure case by case, then print."""
    cases = report.cases(values, values.nets, values.steps_per_execution)
    for word in values.peer:
        if word not in PEERS:
            raise names.choices("peer", word, list(PEERS))
        package = "flax" if word == "flax" else "torch"
        if importlib.util.find_spec(package) is None:
            raise names.ConfigError(
                f"--peer={word} needs torch: `pip install -e '.[peer]'` in the "
                "project's folder"
            )
    figures = report.Report(values, operations_per_mac=OPERATIONS_PER_MAC)
    peers = list(dict.fromkeys(values.peer))
    if "torch" in peers and figures.machine.platform == "gpu":
        peers = list(dict.fromkeys([*peers, "torch.compile"]))

    def rows_of(one: Case) -> list[Row]:
        found = rounds.measure(one, peers, values.rounds, values.seconds)
        return step_rows(one, report.summary(one), found)

    rows = list(figures.measure("steps", cases, rows_of))
    print(figures)
    tables.show("train steps", [line(row) for row in rows])
    return 0


def step_rows(
    one: Case, summary: Summary, found: Sequence[rounds.Measurement]
) -> list[Row]:
    """Rows of a case, one a contender; None stands for what was not measured.

    Ratios and shares are None too where this package failed half-way.

    Args:
      one: the case.
      summary: of its network.
      found: what was measured, this package first.

    Returns:
      Times in seconds, memory in bytes, rates a second.
    """
    rows = []
    ours = found[0]
    operations = OPERATIONS_PER_MAC * summary.macs * one.batch
    for measured in found:
        row: Row = {
            "net": one.net,
            "batch": one.batch,
            "dtype": one.dtype,
            "devices": one.devices,
            "steps_per_execution": one.dispatch,
            "model": one.model,
            "contender": measured.contender,
            "reason": measured.reason,
            "parameters": summary.parameters,
            "macs": summary.macs,
        }
        row |= dict.fromkeys(FIGURES)
        if not measured.reason:
            seconds = measured.median
            row |= {
                "step": seconds,
                "step_range": [min(measured.seconds), max(measured.seconds)],
                "images_per_second": one.batch / seconds,
                "memory": measured.memory,
                "flops": operations / seconds,
            }
            if not ours.reason:
                peak = max(ours.peak_rates)
                row |= {"peak_flops": peak, "share_of_peak": row["flops"] / peak}
            if measured.contender != "torch":  # which compiles nothing
                row["compile"] = measured.compile_seconds
            if measured is not ours and not ours.reason:
                single = [
                    theirs / own
                    for theirs, own in zip(measured.seconds, ours.seconds, strict=True)
                ]
                row["ratio"] = seconds / ours.median
                row["ratio_range"] = [min(single), max(single)]
        rows.append(row)
    return rows


def line(row: Row) -> dict[str, str]:
    """A row as it is printed."""
    which = {
        "net": row["net"],
        "batch": str(row["batch"]),
        "type": row["dtype"],
        "devices": str(row["devices"]),
        "a call": str(row["steps_per_execution"]),
        "by": row["contender"],
        "ms/step": "not measured" if row["reason"] else f"{1e3 * row['step']:.4g}",
    }
    formats = {
        "range": ("step_range", lambda v: f"{1e3 * v[0]:.4g}..{1e3 * v[1]:.4g}"),
        "images/s": ("images_per_second", "{:,.0f}".format),
        "compile s": ("compile", "{:.1f}".format),
        "peak MiB": ("memory", lambda v: f"{v / 2**20:,.0f}"),
        "GFLOP/s": ("flops", lambda v: f"{v / 1e9:,.1f}"),
        "of peak": ("share_of_peak", "{:.1%}".format),
    }
    cells = {
        title: "" if row[key] is None else write(row[key])
        for title, (key, write) in formats.items()
    }
    ratio = row["reason"]
    if row["ratio"] is not None:
        ratio = "{:.2f} ({:.2f}..{:.2f})".format(row["ratio"], *row["ratio_range"])
    return {**which, **cells, "peer / ours": ratio}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subject; returns its exit status."""
    return report.run(body, define, __doc__, argv)
