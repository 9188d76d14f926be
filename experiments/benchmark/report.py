"""Cases from the command line, and results of the benchmark, printed and in a file."""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax import names
from cnn_jax.training.files import write_atomically
from experiments import launch
from experiments.benchmark import case, rounds
from experiments.benchmark.case import Case

PACKAGES = ("jax", "jaxlib", "flax", "torch")
Row = dict[str, Any]
# The key of a figure, the factor and the format by which it is printed.
Format = tuple[str, float, str]


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
    return found


def row_of(one: Case) -> Row:
    """The columns that identify a case."""
    named = {"net": one.net, "batch": one.batch, "dtype": one.dtype}
    return {**named, "devices": one.devices, "model": one.model}


def measure(
    values: argparse.Namespace,
    kind: str,
    wanted: Sequence[Case],
    rows_of: Callable[[Case], list[Row]],
    **content: Any,
) -> list[Row]:
    """Measure cases by ``rows_of``, and print the machine.

    Writes the file of ``--json`` after each case: the machine, the other ``content``,
    and the rows under the key ``kind``.

    Raises:
      ConfigError: a case needs more devices than the machine has.
    """
    # This process uses no accelerator: devices belong to its children.
    jax.config.update("jax_platforms", "cpu")
    path = pathlib.Path(values.json) if values.json else None
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # fails now rather than after the measurements
    machine = rounds.machine()
    most = max(one.devices for one in wanted)
    if most > machine.devices:
        raise names.ConfigError(
            f"devices {most}: this machine has {machine.devices} "
            f"{machine.platform} device(s)"
        )
    if machine.load > machine.cores / 2:
        print(
            f"warning: the machine is busy (load {machine.load:.1f} on "
            f"{machine.cores} cores): the timings will be too long, and some "
            "frameworks suffer far more than others",
            file=sys.stderr,
        )
    versions = dict.fromkeys(PACKAGES, "")
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    rows: list[Row] = []
    origin = {**dataclasses.asdict(machine), "versions": versions}
    content = {"machine": origin, **content, kind: rows}
    for one in wanted:
        rows += rows_of(dataclasses.replace(one, platform=machine.platform))
        if path is not None:
            write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
        about = f"batch {one.batch}, {one.dtype}, {one.devices} device(s)"
        print(f"measured {one.net}, {about}", file=sys.stderr)
    devices = f"{machine.devices} x {machine.kind} ({machine.platform})"
    installed = ", ".join(f"{name} {own}" for name, own in versions.items() if own)
    print(f"{devices}, {machine.cores} cores; {installed}")
    return rows


def cells(row: Row, formats: Mapping[str, Format]) -> dict[str, str]:
    """Format the figures of a row; ranges as 'low..high', missing ones as ''."""
    found = {}
    for title, (key, scale, spec) in formats.items():
        ends = [] if row[key] is None else np.atleast_1d(row[key])
        found[title] = "..".join(format(scale * end, spec) for end in ends)
    return found
