"""Measure the compile time of a deep net's train step, stage by stage.

    python -m experiments.benchmark compile --depths=110,1202 \\
        [--field=scan=True --field=remat=True]

Compiles the steps of CIFAR ResNets without running them, each in a separate process
with the compilation cache off. The bytes of a compiled step are those that XLA plans
for its arguments and buffers.
"""

import argparse
import itertools
import time
from collections.abc import Sequence
from typing import Any

from experiments import launch, tables
from experiments.benchmark import contender, report, rounds
from experiments.benchmark.case import Case
from experiments.benchmark.report import Row

STAGES = ("trace", "lower", "compile")


def define(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--depths",
        type=launch.listed(launch.at_least(1)),
        default=[20, 56, 110],
        help="depths of the nets",
    )
    report.define(parser)


def body(values: argparse.Namespace) -> int:
    """Compile the cases one after another, then print the results."""
    nets = [f"resnet{depth}@32x32x3" for depth in values.depths]
    cases = report.cases(values, nets)
    figures = report.Report(values)
    rows = list(figures.measure("compilations", cases, rows_of))
    print(figures)
    tables.show("compile time of a train step, seconds", [line(row) for row in rows])
    return 0


def rows_of(one: Case) -> list[Row]:
    """The row of a case: seconds of each stage, and bytes; None if it failed."""
    row: Row = {"net": one.net, "batch": one.batch, "dtype": one.dtype, "reason": ""}
    row |= {"devices": one.devices, "model": one.model}
    row |= dict.fromkeys((*STAGES, "bytes"))
    try:
        return [row | rounds.in_child(compilation, one)]
    except rounds.ChildError as error:
        return [row | {"reason": str(error)}]


def line(row: Row) -> dict[str, str]:
    """Format a row for printing."""
    given = {k: v for k, v in row["model"].items() if k not in ("name", "depth")}
    which = {
        "net": row["net"],
        "fields": ", ".join(f"{key}={value}" for key, value in given.items()),
        "batch": str(row["batch"]),
        "type": row["dtype"],
    }
    titles = (*STAGES, "sum", "step MiB")
    if row["reason"]:
        return which | dict.fromkeys(titles, "") | {titles[-1]: row["reason"]}
    seconds = [row[stage] for stage in STAGES]
    cells = [f"{value:.2f}" for value in (*seconds, sum(seconds))]
    cells.append(f"{row['bytes'] / 2**20:,.0f}")
    return which | dict(zip(titles, cells, strict=True))


def compilation(case: Case) -> dict[str, Any]:
    """Time the stages of compiling a case's train step, without running it.

    Args:
      case: the case to compile.

    Returns:
      Seconds: 'trace' (Python to jaxpr), 'lower' (to StableHLO), 'compile' (to machine
      code); and the 'bytes' that XLA plans for arguments and buffers.
    """
    step, arguments = contender.readable_step(case)
    times = [time.perf_counter()]
    stage: Any = step.trace(*arguments)
    times.append(time.perf_counter())
    stage = stage.lower()
    times.append(time.perf_counter())
    stage = stage.compile()
    times.append(time.perf_counter())
    seconds = (b - a for a, b in itertools.pairwise(times))
    memory = stage.memory_analysis()
    planned = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    return {**dict(zip(STAGES, seconds, strict=True)), "bytes": planned}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subject and return its exit status."""
    return report.run(body, define, __doc__, argv)
