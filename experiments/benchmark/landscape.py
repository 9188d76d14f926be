"""Measure time and memory of a loss landscape: one program against loops over points.

    python -m experiments.benchmark landscape

The net is that of the study on digits, with ``--depth`` layers; it is untrained, as its
weights do not change the cost. The loss is a mean over the first ``--images`` training
images. Three methods evaluate the same points:

    one program        a compiled loop over a row of points (`analysis.landscape`)
    one call per point a compiled evaluation that moves the weights itself; its loss
                       is read before the next call
    moved on the host  NumPy moves the weights, which are sent to the device for a
                       compiled evaluation, as the loop of Li et al. (2018) does

The methods alternate, row by row, and each ratio is a median over rows. Seconds are
processor time on a CPU. ``--whole`` also times the whole grid with one program.
Memory is the peak of a fresh process that evaluates one row, including dataset,
compiler and libraries.
"""

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pandas

from cnn_jax import study
from cnn_jax.analysis import landscape
from cnn_jax.analysis.net import at_initialisation
from cnn_jax.training.program import Program
from configs import degradation_digits
from experiments import launch, tables
from experiments.benchmark.rounds import in_child, resident

# Objective, parameters, directions and the objective's remaining arguments.
Problem = tuple[landscape.EvaluationLoss, Any, tuple[Any, ...], tuple[Any, ...]]


def problem(family: str, depth: int, images: int) -> Problem:
    """The study's untrained net of a family and depth, on the device."""
    config = degradation_digits.get_config()
    config.depths, config.seeds = (depth,), (0,)
    [run] = [run for run in study.expand(config) if run.family == family]
    program = Program(study.merge(run.config, {"parallel": {"devices": 1}}))
    net = at_initialisation(program, family, depth, seed=0)
    params = net.variables["params"]
    directions = landscape.random_directions(params, 0, 2)
    batches = landscape.stack(net.batches("train", images))
    objective = landscape.EvaluationLoss(net.model, program.loss, program.errors)
    fixed = (net.variables["batch_stats"], batches)
    return objective, *jax.device_put((params, directions, fixed))


@functools.partial(jax.jit, static_argnums=0)
def loss_at(
    objective: Any, params: Any, directions: Any, fixed: Any, point: Any
) -> jax.Array:
    """The loss at a point; of ``params`` themselves without any direction."""
    return objective(landscape.moved(params, directions, point), *fixed)["loss"]


def one_program(given: Problem, points: np.ndarray) -> Sequence[float]:
    """The losses of a row of the grid, by `landscape.evaluate`."""
    *where, fixed = given
    return landscape.evaluate(*where, (points[:1, 0], points[:, 1]), fixed)["loss"][0]


def a_call_a_point(given: Problem, points: np.ndarray) -> Sequence[float]:
    """Each point's loss is read before the next call."""
    return [float(loss_at(*given, point)) for point in points]


def moved_on_the_host(given: Problem, points: np.ndarray) -> Sequence[float]:
    """NumPy moves the weights; they are sent to the device for each point."""
    objective, *where, fixed = given
    where = jax.device_get(where)
    weights = (jax.device_put(landscape.moved(*where, point)) for point in points)
    return [float(loss_at(objective, own, (), fixed, ())) for own in weights]


METHODS: dict[str, Callable[[Problem, np.ndarray], Sequence[float]]] = {
    "one program": one_program,
    "one call per point": a_call_a_point,
    "moved on the host": moved_on_the_host,
}


def clock() -> float:
    """Seconds; on a CPU, of processor time, which other work hardly affects."""
    on_cpu = jax.default_backend() == "cpu"
    return time.process_time() if on_cpu else time.perf_counter()


def grid(points: int) -> np.ndarray:
    """Rows of points from -1 to 1 on both axes, (rows, points, 2)."""
    axis = np.linspace(-1, 1, points, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)


def times(given: Problem, points: int, rows: int) -> pandas.DataFrame:
    """Seconds of each row with each method; the methods alternate and must agree.

    Raises:
      ArithmeticError: the losses of two methods differ by more than rounding.
    """
    chosen = np.linspace(0, points - 1, rows + 1).astype(int)
    found = []
    for row in grid(points)[chosen]:
        losses, seconds = {}, {}
        for name, method in METHODS.items():
            start = clock()
            losses[name] = method(given, row)
            seconds[name] = clock() - start
            if not np.allclose(losses[name], losses["one program"], rtol=1e-3):
                raise ArithmeticError(f"{name} and one program disagree on a loss")
        found.append(seconds)
    return pandas.DataFrame(found[1:])  # the first row compiles


def peak_memory(name: str, net: Sequence[Any], points: int) -> float:
    """Peak memory of this process after one row, in megabytes."""
    METHODS[name](problem(*net), grid(points)[0])
    return resident("VmHWM") / 2**20


def define(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    positive = launch.at_least(1)
    add = parser.add_argument
    add("--family", default="residual", choices=("plain", "residual"))
    add("--depth", type=positive, default=56, help="weight layers")
    add("--images", type=positive, default=256, help="training images")
    add("--points", type=positive, default=51, help="points per axis")
    add("--rows", type=positive, default=5, help="grid rows to time")
    add("--whole", action="store_true", help="also time the whole grid")


@launch.command(__doc__, define)
def main(values: argparse.Namespace) -> None:
    """Measure and print the results."""
    net = family, depth, images = values.family, values.depth, values.images
    given, points = problem(*net), values.points
    seconds = times(given, points, values.rows)
    speedup = seconds.div(seconds["one program"], axis=0).median()
    rows = [
        {
            "by": name,
            "ms/point": f"{1000 * row / points:.1f}",
            "grid (s)": f"{row * points:.0f}",
            "speedup of one program": f"{speedup[name]:.2f}x",
            "peak memory (MB)": f"{in_child(peak_memory, name, net, points):.0f}",
        }
        for name, row in seconds.median().items()
    ]
    tables.show(f"{family} {depth}, {images} images, {points} x {points} points", rows)
    if values.whole:
        *where, fixed = given
        axis = np.linspace(-1, 1, points)
        start = clock()
        landscape.evaluate(*where, (axis, axis), fixed)
        print(f"whole grid in one program: {clock() - start:.1f} s")
