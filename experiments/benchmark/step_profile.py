"""Profile a train step by kind of operation.

    taskset -c 0 python -m experiments.benchmark profile \\
        [--net=resnet20@32x32x3] [--batch=128]

Runs a few steps under jax's profiler and sums the time of the compiled program's
operations: the convolutions of the forward pass and of both gradients, the copies
that change array layouts for them, max-pooling, normalisation, and the rest. On one
core (`taskset -c 0`) the parts add up to the step. On several cores, the times of
concurrent operations are all counted, and work on XLA's own threads is not seen.
For CPU only: other backends name their operations differently.
"""

import argparse
import collections
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence

import jax

from cnn_jax.names import ConfigError
from experiments import launch
from experiments.benchmark.case import Case, parse
from experiments.benchmark.contender import readable_step

STEPS = 5
# The extension's functions, each an operation of its own.
EXTENSION = {
    "cnn_jax_maps": "convolution",
    "cnn_jax_images": "its gradient w.r.t. the images",
    "cnn_jax_kernel": "its gradient w.r.t. the kernel",
    "cnn_jax_largest": "max-pooling",
    "cnn_jax_route": "the gradient of max-pooling",
}
# Name, shape (of a tuple, its first part), source and target of an operation in a
# compiled program's text. A loop or a call is counted by its own operations.
OPERATION = re.compile(
    r"""^\s*(?:ROOT\ )?%?([\w.\-]+)\ =\ \(?\w+\[([\d,]*)\]
    (?!.*?\ (?:while|call|conditional)\()
    (?=(?:.*?op_name="([^"]*)")?)
    (?=(?:.*?custom_call_target="([^"]*)")?)""",
    re.MULTILINE | re.VERBOSE,
)


def kind(
    operation: str, shape: Sequence[int], source: str, target: str, batch: int
) -> str:
    """The kind of an operation of a compiled train step.

    Args:
      operation: its name in the program ('ynn_fusion.3', 'transpose_copy_fusion').
      shape: shape of its result.
      source: path of the functions that it comes from.
      target: the foreign function that it calls; '' if it calls none.
      batch: images per step.
    """
    if target in EXTENSION:
        return EXTENSION[target]
    copies = operation.startswith(("transpose", "copy", "concatenate"))
    if "conv_general_dilated" in source or ("/conv" in source.lower() and copies):
        if copies:
            return "layout changes for convolutions"
        if "transpose(" not in source:
            return "convolution"
        by_images = bool(shape) and shape[0] == batch
        return f"its gradient w.r.t. the {'images' if by_images else 'kernel'}"
    if "dot_general" in source:
        return "matrix product"
    if re.search(r"bn\d*|norm", source):
        return "batch norm (and operations fused with it)"
    return "other operations"


def profile(case: Case) -> tuple[float, Mapping[str, float]]:
    """Milliseconds of a step of a case on one device, in total and by kind."""
    step, (state, *data) = readable_step(case)
    step = step.lower(state, *data).compile()
    kinds = {
        name: kind(name, [int(n) for n in shape.split(",") if n], *rest, case.batch)
        for name, shape, *rest in OPERATION.findall(step.as_text())
    }
    for _ in range(2):
        state, _ = step(state, *data)
    jax.block_until_ready(state)
    with tempfile.TemporaryDirectory() as place:
        with jax.profiler.trace(place):
            for _ in range(STEPS):
                state, _ = step(state, *data)
            jax.block_until_ready(state)
        (found,) = pathlib.Path(place).rglob("*.xplane.pb")
        trace = jax.profiler.ProfileData.from_file(str(found))
    times: collections.Counter[str] = collections.Counter()
    for plane in trace.planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in kinds:
                    times[kinds[event.name]] += event.duration_ns / STEPS / 1e6
    return sum(times.values()), dict(times.most_common())


def define(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("--net", default="resnet20@32x32x3", help="net, as in `steps`")
    add("--batch", type=launch.at_least(1), default=128, help="batch size")


@launch.command(__doc__, define)
def main(values: argparse.Namespace) -> None:
    """Profile and print the results."""
    if jax.default_backend() != "cpu":
        raise ConfigError("this profile supports the CPU backend only")
    case = parse(values.net, values.batch, "float32", 1, 1, {})
    total, times = profile(case)
    print(f"{case.net}, batch {case.batch}: {total:.1f} ms per step")
    for name, time in times.items():
        print(f"{time:9.2f} ms  {100 * time / total:4.1f} %  {name}")
