"""The loop of one run: steps, log rows, evaluations, checkpoints, resume."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax

from cnn_jax.train import checkpoint
from cnn_jax.train.feed import feed
from cnn_jax.train.interrupt import Interrupted, StopRequest
from cnn_jax.train.program import Program
from cnn_jax.train.run_directory import BN_IMAGES, FINGERPRINT, RunDirectory

Report = Callable[[int, dict[str, Any] | None], None]

# Dispatches that may be under way before the host reads the oldest one's sums.
IN_FLIGHT = 2


class Diverged(ArithmeticError):
    """The training loss is not finite; the message names the step."""


class _Window:
    """Sums of the running training metrics since the last log row."""

    def __init__(self, totals: dict[str, float] | None = None):
        self.totals = dict(totals or {"loss": 0.0, "error": 0.0, "count": 0.0})
        self.rate = 0.0

    def add(self, sums: dict[str, float]) -> None:
        for key in self.totals:
            self.totals[key] += sums[key]
        self.rate = sums["rate"]

    def close(self) -> dict[str, float]:
        count = self.totals["count"]
        row = {
            "running_train_loss": self.totals["loss"] / count,
            "running_train_error": self.totals["error"] / count,
            "learning_rate": self.rate,
        }
        self.totals = dict.fromkeys(self.totals, 0.0)
        return row


def fit(
    program: Program, seed: int, directory: RunDirectory, report: Report | None = None
) -> dict[str, Any]:
    """Train a run to its end, from wherever it stopped.

    The result does not depend on how often the run was stopped: checkpoints hold
    the state, the partial sums of the log row under way and the log's length.

    Args:
      program: what to run.
      seed: of this run; replaces the config's own.
      directory: where it lives.
      report: called with the steps done and, where there is one, the log row.

    Returns:
      The result, as ``result.json`` holds it: errors are fractions, 'seconds'
      is the time spent in all attempts.

    Raises:
      ConfigError: the directory cannot be used (see `RunDirectory`).
      CheckpointError: there are checkpoints and none is whole.
      Diverged: the loss is not finite; nothing non-finite was saved.
      Interrupted: SIGTERM or Ctrl-C came; a checkpoint of that step is saved.
    """
    config = {**program.config, "seed": seed}
    record = {
        **config,
        FINGERPRINT: program.source.fingerprint,
        BN_IMAGES: program.bn_images,
    }
    with directory.open_for_training(record), StopRequest() as stop:
        done = directory.result()
        if done is not None:
            return done
        return _Run(program, config, directory, report or _silent, stop).train()


class _Run:
    """One attempt at a run: what `fit` holds while it lasts."""

    def __init__(
        self,
        program: Program,
        config: dict[str, Any],
        directory: RunDirectory,
        report: Report,
        stop: StopRequest,
    ):
        self.program, self.config, self.directory = program, config, directory
        self.report, self.stop = report, stop
        self.started = time.monotonic()
        self.spent = 0.0
        self.window = _Window()
        self.log_size = 0
        self.source_state = b""
        self.row: dict[str, Any] = {}
        fresh = program.initial_state(config["seed"])
        found = checkpoint.restore(directory.checkpoints, fresh)
        if found is not None:
            fresh, notes, complaints = found
            for line in complaints:
                print(f"warning: {line}; using the one before", flush=True)
            self.spent = notes["seconds"]
            self.window = _Window(notes["window"])
            self.log_size = notes["log_size"]
            self.source_state = bytes.fromhex(notes["source_state"])
            self.row = notes["row"]
        directory.cut_log(self.log_size)
        self.step = int(fresh.step)
        self.saved = self.step if found is not None else -1
        self.state = program.devices.replicate(fresh)

    def train(self) -> dict[str, Any]:
        program, config = self.program, self.config
        total = config["steps"]
        pending: list[tuple[int, int, Any]] = []
        dispatches = feed(
            program.source, program.devices, config, self.step, self.source_state
        )
        self.report(self.step, None)
        for dispatch in dispatches:
            self.state, sums = program.train(self.state, dispatch)
            self.step = dispatch.last
            self.source_state = dispatch.source_state
            pending.append((dispatch.last, dispatch.count, sums))
            last = self.step == total
            log = last or self.step % config["log_every"] == 0
            evaluate = last or _due(self.step, config["eval_every"])
            save = last or _due(self.step, config["checkpoint_every"])
            stopping = self.stop.received
            boundary = log or evaluate or save or stopping
            self._read(pending, 0 if boundary else IN_FLIGHT)
            row = self._log(log, evaluate)
            self.report(self.step, row)
            if save or stopping:
                self._save()
            if stopping and not last:
                raise Interrupted(stopping)
        return self._finish()

    def _read(self, pending: list[tuple[int, int, Any]], keep: int) -> None:
        """Take in the sums of steps that are done; stop at a non-finite loss."""
        while len(pending) > keep:
            last, count, stacked = pending.pop(0)
            stacked = self.program.devices.fetch(stacked)
            for place in range(count):
                sums = {key: float(values[place]) for key, values in stacked.items()}
                if not math.isfinite(sums["loss"]):
                    raise Diverged(
                        f"the training loss is {sums['loss']} at step "
                        f"{last - count + 1 + place} (learning rate "
                        f"{sums['rate']:g}); the last good checkpoint is kept in "
                        f"{self.directory.checkpoints}"
                    )
                self.window.add(sums)

    def _log(self, log: bool, evaluate: bool) -> dict[str, Any] | None:
        if not log and not evaluate:
            return None
        row: dict[str, Any] = {"step": self.step}
        if log:
            row |= self.window.close()
        if evaluate:
            for split, name in (("train", "clean_train"), ("test", "test")):
                found = self.program.evaluate(self.state, split)
                row |= {f"{name}_{key}": value for key, value in found.items()}
        self.log_size = self.directory.append_row(row)
        self.row = {**self.row, **row}
        return row

    def _save(self) -> None:
        if self.step == self.saved:
            return
        notes = {
            "seconds": self._seconds(),
            "window": self.window.totals,
            "log_size": self.log_size,
            "source_state": self.source_state.hex(),
            "row": self.row,
        }
        host = self.program.devices.fetch(self.state)
        checkpoint.save(self.directory.checkpoints, self.step, host, notes)
        self.saved = self.step

    def _seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    def _finish(self) -> dict[str, Any]:
        device = self.program.devices.devices[0]
        result = {
            "status": "finished",
            **self.row,
            "parameters": self.program.num_parameters,
            "seconds": round(self._seconds(), 3),
            "device": f"{self.program.devices.count} x {device.device_kind}",
            "jax": jax.__version__,
        }
        self.directory.finish(result)
        return result


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _silent(step: int, row: dict[str, Any] | None) -> None:
    del step, row
