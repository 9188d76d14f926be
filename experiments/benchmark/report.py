"""Cases from the command line, and results of the benchmark, printed and in a file."""

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from cnn_jax import names
from cnn_jax.models.summary import Summary, summarize
from experiments import launch
from experiments.benchmark import case, rounds
from experiments.benchmark.case import Case

# A step is a forward pass and a backward pass that costs twice as much; a
# multiply-accumulate is two operations.
OPERATIONS_PER_MAC = 2 * 3
PACKAGES = ("jax", "jaxlib", "flax", "torch")
Row = dict[str, Any]


def define(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select the cases, other than their networks."""
    add, numbers = parser.add_argument, launch.listed(launch.at_least(1))
    add("--batches", type=numbers, default=[128], help="batch size, over all devices")
    dtypes = "compute types: float32, bfloat16"
    add("--dtypes", type=launch.listed(), default=["float32"], help=dtypes)
    add("--devices", type=numbers, default=[1], help="device counts; peers run on 1")
    field = "KEY=VALUE for the networks that have the field; repeatable"
    add("--field", action="append", default=[], help=field)
    add("--json", default="", help="write the results to this file")


def cases(
    values: argparse.Namespace, nets: Sequence[str], dispatches: Sequence[int] = (1,)
) -> list[Case]:
    """All combinations that the command line requests.

    Raises:
      ConfigError: a combination gives no valid network, or no network has a field.
    """
    try:
        fields = names.parse_fields(values.field)
    except names.ConfigError as error:
        raise names.ConfigError(f"--field: {error}") from None
    lists = (nets, values.batches, values.dtypes, values.devices, dispatches)
    found = [case.parse(*words, fields) for words in itertools.product(*lists)]
    for key in fields:
        if not any(key in one.model for one in found):
            raise names.ConfigError(f"--field: no selected net has a field {key!r}")
    for one in found:
        summary(one)
    return found


def summary(one: Case) -> Summary:
    """The summary of a case's network; `ConfigError` if it takes no such images."""
    try:
        return summarize(one.module(), one.image)
    except ValueError as error:
        raise names.ConfigError(f"net {one.net!r}: {error}") from error


def row_of(one: Case) -> Row:
    """The columns that identify a case."""
    named = {"net": one.net, "batch": one.batch, "dtype": one.dtype}
    return {**named, "devices": one.devices, "model": one.model}


class Report:
    """The results so far, written to a file after each case.

    Args:
      values: the parsed command line.
      **content: further content of the file, beside the machine and the rows.
    """

    def __init__(self, values: argparse.Namespace, **content: Any):
        # This process uses no accelerator: devices belong to its children.
        jax.config.update("jax_platforms", "cpu")
        self.path = pathlib.Path(values.json) if values.json else None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()  # fails now rather than after the measurements
        self.machine = rounds.machine()
        about = dataclasses.asdict(self.machine)
        self.versions = {name: _version(name) for name in PACKAGES}
        self.content = {"machine": {**about, "versions": self.versions}, **content}

    def measure(
        self, kind: str, wanted: Sequence[Case], rows_of: Callable[[Case], list[Row]]
    ) -> Iterator[Row]:
        """Measure the cases by ``rows_of``, write all rows to the file, yield them.

        The file has them under the key ``kind``.

        Raises:
          ConfigError: a case needs more devices than the machine has.
        """
        machine = self.machine
        for one in wanted:
            if one.devices > machine.devices:
                raise names.ConfigError(
                    f"devices {one.devices}: this machine has {machine.devices} "
                    f"{machine.platform} device(s)"
                )
        if machine.load > machine.cores / 2:
            print(
                f"warning: the machine is busy (load {machine.load:.1f} on "
                f"{machine.cores} cores): the timings will be too long, and some "
                "frameworks suffer far more than others",
                file=sys.stderr,
            )
        rows = self.content[kind] = []
        for one in wanted:
            rows += rows_of(dataclasses.replace(one, platform=machine.platform))
            if self.path is not None:
                new = self.path.with_name(self.path.name + ".new")
                new.write_text(json.dumps(self.content, indent=1) + "\n")
                new.replace(self.path)
            about = f"batch {one.batch}, {one.dtype}, {one.devices} device(s)"
            print(f"measured {one.net}, {about}", file=sys.stderr)
        yield from rows

    def __str__(self) -> str:
        versions = ", ".join(f"{k} {v}" for k, v in self.versions.items() if v)
        about = self.machine
        return (
            f"{about.devices} x {about.kind} ({about.platform}), {about.cores} cores; "
            f"{versions}"
        )


def _version(package: str) -> str:
    """Version of an installed package, without importing it; '' if not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
