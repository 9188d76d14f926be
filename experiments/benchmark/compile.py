"""Measure the compile time of a deep net's train step, stage by stage.

    python -m experiments.benchmark compile --depths=110,1202 \\
        [--field=scan=True --field=remat=True]

Compiles the steps of CIFAR ResNets without running them, each in a separate process
with the compilation cache off. The bytes of a compiled step are those that XLA plans
for its arguments and buffers.
"""

import argparse
import time
from typing import Any

from experiments import launch, tables
from experiments.benchmark import contender, report, rounds
from experiments.benchmark.case import Case
from experiments.benchmark.report import Row

STAGES = ("trace", "lower", "compile")
FORMATS: dict[str, report.Format] = {
    **{title: (title, 1, ".2f") for title in (*STAGES, "sum")},
    "step MiB": ("bytes", 2**-20, ",.0f"),
}


def define(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    depths = launch.listed(launch.at_least(1))
    add = parser.add_argument
    add("--depths", type=depths, default=[20, 56, 110], help="depths of the nets")
    report.define(parser)


@launch.command(__doc__, define)
def main(values: argparse.Namespace) -> None:
    """Compile the cases one after another, then print the results."""
    cases = report.cases(values, [f"resnet{depth}@32x32x3" for depth in values.depths])
    rows = report.measure(values, "compilations", cases, rows_of)
    tables.show("compile time of a train step, seconds", [line(row) for row in rows])


def rows_of(one: Case) -> list[Row]:
    """The row of a case: seconds of each stage, and bytes; None if it failed."""
    empty = dict.fromkeys((*STAGES, "bytes"))
    row: Row = {**report.row_of(one), "reason": "", **empty}
    try:
        return [row | rounds.in_child(compilation, one)]
    except rounds.ChildError as error:
        return [row | {"reason": str(error)}]


def line(row: Row) -> dict[str, str]:
    """Format a row for printing."""
    given = {k: v for k, v in row["model"].items() if k not in ("name", "depth")}
    total = None if row["reason"] else sum(row[stage] for stage in STAGES)
    cells = report.cells(row | {"sum": total}, FORMATS)
    return {
        "net": row["net"],
        "fields": ", ".join(f"{key}={value}" for key, value in given.items()),
        **{"batch": str(row["batch"]), "type": row["dtype"]},
        **cells,
        "step MiB": row["reason"] or cells["step MiB"],
    }


def compilation(case: Case) -> dict[str, Any]:
    """Time the stages of compiling a case's train step, without running it.

    Returns:
      Seconds: 'trace' (Python to jaxpr), 'lower' (to StableHLO), 'compile' (to machine
      code); and the 'bytes' that XLA plans for arguments and buffers.
    """
    stage, arguments = contender.readable_step(case)
    seconds = {}
    for name in STAGES:
        start = time.perf_counter()
        stage, arguments = getattr(stage, name)(*arguments), ()
        seconds[name] = time.perf_counter() - start
    memory = stage.memory_analysis()
    planned = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    return {**seconds, "bytes": planned}
