"""How fast a train step is, for a list of networks.

    python -m experiments.benchmark --nets=resnet20@32x32x3,lenet5 --batches=128,1 \\
        --peer=torch,flax --json=speed.json
    python -m experiments.benchmark --compile_depths=20,56,110 [--field=KEY=VALUE]

A step is forward pass, loss, backward pass and the update of SGD (momentum,
coupled weight decay), on a batch that is on the device already; ours also gathers
the batch out of a resident set and normalises its uint8 pixels. `--peer` runs the
same networks in other frameworks, in turns with ours: ratios are the peer's time
over ours, medians over all rounds and, in brackets, the least and the largest of
a single round.

  torch           channels_last; on a GPU with cuDNN's search; bfloat16 is autocast;
                  as many threads as we have cores. On a GPU 'torch.compile' joins it
  torch.compile   the same, compiled
  flax            linen's own layers, without anything of this package

FLOP/s are those of the model: 2 for each multiply-accumulate of a forward pass,
times 3 for forward and backward, whatever is really computed. Their share is of
the fastest large matrix product of that type, jax's, in the same rounds. Peak memory is
what the process grew by after its imports, compiling included, or the device's
own count. Blocks of steps are timed, not steps: median and range are over blocks.
The bytes of a compiled step are those that XLA plans for its arguments and buffers.
"""

import dataclasses
import importlib.metadata
import importlib.util
import itertools
import json
import os
import pathlib
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import jax
from absl import flags
from rich import box
from rich.console import Console
from rich.table import Table

from cnn_jax import names
from cnn_jax.models.summary import Summary, summarize
from experiments import launch
from experiments.benchmark import case, rounds
from experiments.benchmark.case import Case
from experiments.peers import PEERS

NETS = (
    *("resnet20@32x32x3", "resnet56@32x32x3", "resnet20@8x8x1", "resnet56@8x8x1"),
    *("lenet5", "lenet5_modern", "vgg11@32x32x3"),
)
# A step is a forward pass and a backward pass of twice its work; a
# multiply-accumulate is two operations.
OPERATIONS_PER_MAC = 2 * 3
WHICH = ("net", "batch", "dtype", "devices", "steps_per_execution")
FIGURES = (
    *("step", "step_range", "images_per_second", "compile", "memory"),
    *("flops", "peak_flops", "share_of_peak", "ratio", "ratio_range"),
)
Row = dict[str, Any]


def define(values: flags.FlagValues) -> None:
    """The command's flags."""

    def words(name: str, default: Sequence[str], text: str) -> None:
        flags.DEFINE_list(name, list(default), text, flag_values=values)

    words(
        "nets",
        NETS,
        "Networks: a name of `python -m cnn_jax.models`, or resnetDEPTH and "
        "plainDEPTH of the CIFAR layout, with @HEIGHTxWIDTHxCHANNELS for images "
        "of another size than the paper's (those have 10 classes).",
    )
    words("batches", ["128"], "Images of a step, over all devices.")
    words("dtypes", ["float32"], "Types of the computation: float32, bfloat16.")
    words("devices", ["1"], "Numbers of devices; peers run on one.")
    words("steps_per_execution", ["1"], "Steps that the devices take in one call.")
    words("peer", [], "Peers to run in turns with ours: torch, torch.compile, flax.")
    flags.DEFINE_multi_string(
        "field",
        [],
        "A field of our networks, KEY=VALUE, for those that have it; again for more.",
        flag_values=values,
    )
    words(
        "compile_depths",
        [],
        "Depths of CIFAR ResNets whose train steps are compiled, not run: time of "
        "each stage, compilation cache off. Without --nets, nothing else is done.",
    )
    flags.DEFINE_integer(
        "rounds", 7, "Blocks of each contender.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_float(
        "seconds", 1.0, "Length of a block, about.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_string("json", "", "File for the same figures.", flag_values=values)


def body(values: flags.FlagValues) -> int:
    """Check everything, then measure case by case, then print."""
    # This process only counts: devices belong to its children.
    jax.config.update("jax_platforms", "cpu")
    depths = [_integer("compile_depths", word) for word in values.compile_depths]
    only_compile = depths and not values["nets"].present
    cases = _cases(values, [] if only_compile else values.nets)
    to_compile = _cases(values, [f"resnet{depth}@32x32x3" for depth in depths])
    _check_fields(values, [*cases, *to_compile])
    for word in values.peer:
        if word not in PEERS:
            raise names.choices("peer", word, list(PEERS))
        package = "flax" if word == "flax" else "torch"
        if importlib.util.find_spec(package) is None:
            raise names.ConfigError(
                f"--peer={word} needs torch: `pip install -e '.[peer]'` in the "
                "project's folder"
            )
    path = pathlib.Path(values.json) if values.json else None
    report = _Report(path)
    summaries = {id(one): _summary(one) for one in [*cases, *to_compile]}
    machine = rounds.machine()
    for one in [*cases, *to_compile]:
        if one.devices > machine.devices:
            raise names.ConfigError(
                f"devices {one.devices}: this machine has {machine.devices} "
                f"{machine.platform} device(s)"
            )
    if machine.load > machine.cores / 2:
        print(
            f"warning: the machine is busy (load {machine.load:.1f} on "
            f"{machine.cores} cores): times will be too long, those of some "
            "frameworks by far more than those of others",
            file=sys.stderr,
        )
    report.begin(machine)
    peers = list(dict.fromkeys(values.peer))
    if "torch" in peers and machine.platform == "gpu":
        peers = list(dict.fromkeys([*peers, "torch.compile"]))
    for one in cases:
        found = rounds.measure(
            dataclasses.replace(one, platform=machine.platform),
            peers,
            values.rounds,
            values.seconds,
        )
        report.steps += step_rows(one, summaries[id(one)], found)
        report.write()
        print(f"measured {_title(one)}", file=sys.stderr)
    for one in to_compile:
        report.compilations.append(_compilation_row(one))
        report.write()
        print(f"compiled {_title(one)}", file=sys.stderr)
    report.print()
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


def _compilation_row(one: Case) -> Row:
    row: Row = {"net": one.net, "batch": one.batch, "dtype": one.dtype, "reason": ""}
    row |= {"devices": one.devices, "model": one.model}
    try:
        found = rounds.in_child("experiments.benchmark.contender:compilation", one)
    except rounds.ChildError as error:
        missing = dict.fromkeys(("trace", "lower", "compile", "bytes"))
        return row | missing | {"reason": str(error)}
    return row | found._asdict()


class _Report:
    """The figures so far: written to a file after each case, printed at the end."""

    def __init__(self, path: pathlib.Path | None):
        self.path = path
        self.machine: dict[str, Any] = {}
        self.steps: list[Row] = []
        self.compilations: list[Row] = []
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()  # fails now rather than after the measurements

    def begin(self, machine: rounds.Machine) -> None:
        packages = ("jax", "jaxlib", "flax", "torch")
        versions = {name: _version(name) for name in packages}
        self.machine = {**dataclasses.asdict(machine), "versions": versions}

    def write(self) -> None:
        if self.path is None:
            return
        content = {
            "machine": self.machine,
            "operations_per_mac": OPERATIONS_PER_MAC,
            "steps": self.steps,
            "compilations": self.compilations,
        }
        new = self.path.with_name(self.path.name + ".new")
        new.write_text(json.dumps(content, indent=1) + "\n")
        new.replace(self.path)

    def print(self) -> None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=200)
        about = self.machine
        versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items() if v)
        console.print(
            f"{about['devices']} x {about['kind']} ({about['platform']}), "
            f"{about['cores']} cores; {versions}",
            highlight=False,
        )
        if self.steps:
            console.print(_steps_table(self.steps))
        if self.compilations:
            console.print(_compilations_table(self.compilations))


def _steps_table(rows: Sequence[Row]) -> Table:
    table = Table(title="train steps", box=box.SIMPLE_HEAD)
    table.add_column("net")
    table.add_column("batch", justify="right")
    table.add_column("type")
    table.add_column("devices", justify="right")
    table.add_column("a dispatch", justify="right")
    table.add_column("by")
    for title in ("ms/step", "range", "images/s", "compile s", "peak MiB", "GFLOP/s"):
        table.add_column(title, justify="right")
    table.add_column("of peak", justify="right")
    table.add_column("peer / ours", justify="right")
    for row in rows:
        which = [str(row[key]) for key in WHICH]
        if row["reason"]:
            empty = ("",) * 6
            cells = ("not measured", *empty, row["reason"])
        else:
            low, high = row["step_range"]
            compiled = row["compile"]
            cells = (
                f"{1e3 * row['step']:.4g}",
                f"{1e3 * low:.4g}..{1e3 * high:.4g}",
                f"{row['images_per_second']:,.0f}",
                "" if compiled is None else f"{compiled:.1f}",
                f"{row['memory'] / 2**20:,.0f}",
                f"{row['flops'] / 1e9:,.1f}",
                "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.1%}",
                _ratio(row),
            )
        table.add_row(*which, row["contender"], *cells)
    return table


def _ratio(row: Row) -> str:
    if row["ratio"] is None:
        return ""
    low, high = row["ratio_range"]
    return f"{row['ratio']:.2f} ({low:.2f}..{high:.2f})"


def _compilations_table(rows: Sequence[Row]) -> Table:
    table = Table(title="compiling a train step, seconds", box=box.SIMPLE_HEAD)
    table.add_column("net")
    table.add_column("fields")
    for title in ("batch", "type", "trace", "lower", "compile", "sum", "step's MiB"):
        table.add_column(title, justify="right")
    for row in rows:
        if row["reason"]:
            cells = ["not measured", "", "", "", row["reason"]]
        else:
            stages = [row["trace"], row["lower"], row["compile"]]
            cells = [f"{seconds:.2f}" for seconds in (*stages, sum(stages))]
            cells.append(f"{row['bytes'] / 2**20:,.0f}")
        given = {k: v for k, v in row["model"].items() if k not in ("name", "depth")}
        fields = ", ".join(f"{key}={value}" for key, value in given.items())
        table.add_row(row["net"], fields, str(row["batch"]), row["dtype"], *cells)
    return table


def _cases(values: flags.FlagValues, nets: Sequence[str]) -> list[Case]:
    batches = [_integer("batches", word) for word in values.batches]
    devices = [_integer("devices", word) for word in values.devices]
    dispatches = [
        _integer("steps_per_execution", word) for word in values.steps_per_execution
    ]
    every = itertools.product(nets, batches, values.dtypes, devices, dispatches)
    return [case.parse(*words, _fields(values)) for words in every]


def _fields(values: flags.FlagValues) -> dict[str, Any]:
    try:
        return names.parse_fields(values.field)
    except names.ConfigError as error:
        raise names.ConfigError(f"--field: {error}") from None


def _check_fields(values: flags.FlagValues, cases: Sequence[Case]) -> None:
    for key in _fields(values):
        if not any(key in one.model for one in cases):
            raise names.ConfigError(f"--field: none of the nets has a field {key!r}")


def _summary(one: Case) -> Summary:
    try:
        return summarize(one.module(), one.image)
    except ValueError as error:
        raise names.ConfigError(f"net {one.net!r}: {error}") from error


def _integer(flag: str, word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise names.ConfigError(f"--{flag}: {word!r} is not a whole number") from None


def _title(one: Case) -> str:
    return f"{one.net}, batch {one.batch}, {one.dtype}, {one.devices} device(s)"


def _version(package: str) -> str:
    """Of an installed package, without importing it; '' where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        return launch.run(body, define, __doc__, argv)
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    """End on a signal as on an error: by way of those who end the children."""
    os.write(sys.__stderr__.fileno(), b"stopped by SIGTERM\n")  # print may be busy
    sys.exit(128 + number)
