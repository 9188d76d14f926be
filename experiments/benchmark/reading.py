"""Measure the training speed of the over-segmentation system by length of line.

    python -m experiments.benchmark reading [--config=configs/gtn_digits.py] \\
        [--workdir=DIR]

Times training steps of the config's ``system`` on lines of 5 to 40 digits. Each step
has the same number of digits, so the time per digit is constant if the time per
string is linear in its length. Also times the loss of an alignment graph (with its
gradient) and `optax.ctc_loss`, which is the same function, on as many positions as a
space displacement network has on such lines. The measurements alternate, round by
round. Prints medians, and writes them with a figure as ``speed`` to the directory,
``runs/NAME`` by default.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas

from cnn_jax import study
from cnn_jax.models.gtn import chain
from cnn_jax.plots import reading as figures
from cnn_jax.training import files, strings
from cnn_jax.training.program import Program
from experiments import gtn, launch

LENGTHS = (5, 10, 20, 40)
DIGITS = 160  # per step and device
STRIDE = 4  # columns between neighbouring positions of LeNet-5
ROUNDS = 15

Run = Callable[[], Any]


def define(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    where = "output directory (default: runs/NAME)"
    parser.add_argument("--workdir", default="", help=where)


@launch.command(__doc__, define, config="gtn_digits.py")
def main(values: argparse.Namespace) -> None:
    """Measure, print, and write the table and the figure."""
    config = gtn.check(values.config)
    directory = files.local(values.workdir or f"runs/{config['name']}")
    directory.mkdir(parents=True, exist_ok=True)
    rows = measure(config["system"], ROUNDS)
    for row in rows.itertuples():
        print(
            f"{row.length:>3} digits: {row.strings_per_second:8.1f} strings/s, "
            f"{row.ms_per_string / row.length:6.3f} ms/digit; "
            f"loss {row.alignment_ms:.3f} ms/string, CTC {row.ctc_ms:.3f} ms"
        )
    study.write_table(rows, directory / "speed.csv")
    figures.speed(rows, directory)


def measure(config: dict[str, Any], rounds: int) -> pandas.DataFrame:
    """Measure median times at each length.

    Args:
      config: config of a run of the over-segmentation system.
      rounds: number of timings of each.

    Returns:
      Rows with 'length', 'strings_per_second', 'ms_per_string' (of a training step),
      'alignment_ms' and 'ctc_ms' (loss and gradient, per string).
    """
    runs: dict[tuple[int, str], Run] = {}
    for length in LENGTHS:
        width, runs[length, "ms_per_string"] = training(config, length)
        losses = alignment_and_ctc(length, width // STRIDE)
        runs[length, "alignment_ms"], runs[length, "ctc_ms"] = losses

    def milliseconds(run: Run) -> float:
        started = time.perf_counter()
        jax.block_until_ready(run())
        return 1000 * (time.perf_counter() - started)

    timed = [[milliseconds(run) for run in runs.values()] for _ in range(rounds + 1)]
    columns = pandas.MultiIndex.from_tuples(runs)
    median = pandas.DataFrame(timed[1:], columns=columns).median()  # round 0 compiles
    rows = median.unstack()[["ms_per_string", "alignment_ms", "ctc_ms"]]
    rows = rows.rename_axis("length").div(DIGITS // rows.index, axis=0)
    rows["ms_per_string"] /= jax.local_device_count()
    rows.insert(0, "strings_per_second", 1000 / rows["ms_per_string"])
    return rows.reset_index()


def training(config: dict[str, Any], length: int) -> tuple[int, Run]:
    """Columns per line, and a training step of all devices on such lines."""
    lines = {"min_length": length, "max_length": length, "num_lines": 1}
    batch_size = DIGITS // length * jax.local_device_count()
    room = {"cuts": 3 * length + 1, "average": 4 * length}
    changed = {"batch_size": batch_size, "dataset": lines, "model": room}
    program = Program(study.merge(config, changed))
    state = program.place(program.initial_state(0))
    item, _ = next(program.source.train_batches(0, batch_size, 0))
    item = program.devices.split(item)

    def step() -> Any:
        nonlocal state
        state, sums = program.train_step(state, program.resident, item)
        return state, sums

    return program.source.image_shape[1], step


def alignment_and_ctc(length: int, positions: int) -> tuple[Run, Run]:
    """Value and gradient of the alignment graph's loss, and of optax's CTC loss."""
    random, classes = np.random.default_rng(0), 10
    shape = (DIGITS // length, positions, classes + 1)
    scores = jnp.asarray(random.normal(size=shape), jnp.float32)
    label = jnp.asarray(random.integers(0, classes, (shape[0], length)), jnp.int32)
    batch = {"label": label, "length": jnp.full(shape[0], length)}

    def alignment(scores: jax.Array) -> jax.Array:
        return strings.string_loss(jax.vmap(chain)(scores), batch).sum()

    def ctc(scores: jax.Array) -> jax.Array:
        whole = jnp.zeros(shape[:2]), label, jnp.zeros(label.shape)
        return optax.ctc_loss(scores, *whole, blank_id=classes).sum()

    compiled = [jax.jit(jax.value_and_grad(loss)) for loss in (alignment, ctc)]
    return lambda: compiled[0](scores), lambda: compiled[1](scores)
