"""The training loop of one run: steps, log, evaluation, checkpoints, resume.

One file, beyond 350 lines, because every step of a run reads or changes its position.
"""

import contextlib
import datetime
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from cnn_jax import kernels
from cnn_jax.data.item import Split
from cnn_jax.training import checkpoint, hosts, provenance, writers
from cnn_jax.training.config import option
from cnn_jax.training.feed import EVERY, feed
from cnn_jax.training.interrupt import Interrupted, SharedStop, StopRequest
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import PLUGINS, RunDirectory
from cnn_jax.training.state import not_finite

Report = Callable[[int, dict[str, Any] | None], None]

# Dispatches in flight before the host reads the sums of the oldest one.
IN_FLIGHT = 2


class Diverged(ArithmeticError):
    """The loss or a parameter is not finite; the message names the step."""


class Window:
    """Sums of the running training metrics since the last log row."""

    def __init__(self, notes: dict[str, float] | None = None):
        self.totals = {"loss": 0.0, "error": 0.0, "count": 0.0}
        self.rate = 0.0
        if notes is not None:
            self.totals = {key: notes[key] for key in self.totals}
            self.rate = notes["rate"]

    def notes(self) -> dict[str, float]:
        """What a checkpoint keeps of it."""
        return {**self.totals, "rate": self.rate}

    def add(self, sums: dict[str, float]) -> None:
        """Add the sums of a dispatch."""
        for key in self.totals:
            self.totals[key] += sums[key]
        self.rate = sums["rate"]

    def close(self) -> dict[str, float]:
        """The means, for a log row; the sums start again from zero."""
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
    """Train a run to its end, from the beginning or from its last checkpoint.

    The result does not depend on how often the run was stopped: a checkpoint holds
    the state, the partial sums of the current log row and the log itself. With
    several hosts, only the first accesses the directory and reports. The others
    wait for it, receive what it read, and raise the exceptions it raised.

    Args:
      program: the compiled run.
      seed: of this run; replaces the seed in the config.
      directory: the run directory.
      report: called with the number of steps done and the log row, or None if no
        row is due.

    Returns:
      The content of ``result.json``: errors are fractions, 'seconds' is the total
      time of all attempts.

    Raises:
      ConfigError: the directory cannot be used (see `RunDirectory`).
      CheckpointError: every checkpoint is damaged, or checkpoints were saved and
        none is left.
      Diverged: loss or parameters are not finite; nothing non-finite was saved.
      Interrupted: a signal asked to stop; a checkpoint of that step is saved.
    """
    config = {**program.config, "seed": seed}
    facts = {
        PLUGINS: provenance.plugins(config),
        provenance.CONVOLUTIONS: kernels.library(),
        **provenance.recorded(program),
    }
    record = {**config, **facts}
    if report is None or not hosts.is_first():
        report = _silent
    with contextlib.ExitStack() as opened, StopRequest() as stop:
        done = hosts.from_first(lambda: directory.finished(record))
        if done is None:
            entered = directory.open_for_training(record)
            hosts.from_first(lambda: opened.enter_context(entered))
            # Another process may have finished the run in the meantime.
            done = hosts.from_first(lambda: directory.finished(record))
        if done is not None:
            if done["status"] == "diverged":
                raise Diverged(done["message"])
            return done
        hosts.from_first(lambda: directory.record_data(program.facts.to_bytes()))
        shared = SharedStop(stop, program.devices)
        run = _Run(program, config, directory, report, shared)
        for writer in run.writers:
            opened.callback(writer.close)
        return run.train()


class _Run:
    """One attempt at a run: the state of `fit` while it trains."""

    def __init__(
        self,
        program: Program,
        config: dict[str, Any],
        directory: RunDirectory,
        report: Report,
        stop: SharedStop,
    ):
        self.program, self.config, self.directory = program, config, directory
        self.report, self.stop = report, stop
        self.started = time.monotonic()
        state, notes, self.log, self.logged = hosts.from_first(self._open)
        self.spent = notes["seconds"]
        self.window = Window(notes["window"])
        self.source_state = bytes.fromhex(notes["source_state"])
        self.step = int(state.step)
        self.saved = notes["saved"]
        self.state = program.place(state)
        chosen = option(config, "log").get("writers", ())
        self.writers = (
            writers.build(chosen, directory.path, config, directory.rows())
            if hosts.is_first()
            else []
        )

    def _open(self) -> tuple[Any, dict[str, Any], bytes, int]:
        """State, notes, log and last logged step of the newest checkpoint."""
        directory = self.directory
        state = self.program.initial_state(self.config["seed"])
        found = checkpoint.restore(directory.checkpoints, state)
        log = b""
        if found is None:
            self._check_that_none_is_lost()
            notes: dict[str, Any] = {
                "seconds": 0.0,
                "window": None,
                "source_state": "",
                "saved": -1,
            }
        else:
            state, notes, complaints = found
            for line in complaints:
                print(f"warning: {line}; using the previous one", flush=True)
            notes["saved"] = int(state.step)
            log = notes["log"].encode()
            for name in directory.changed_plugins(self.config):
                print(
                    f"warning: the code of {name} has changed since the run began; "
                    "it resumes with the new code",
                    flush=True,
                )
            before, now = directory.convolutions(), kernels.library()
            if before not in (None, now):
                print(
                    f"warning: {before} computed the convolutions when the run began; "
                    f"it resumes with those of {now}, which round differently",
                    flush=True,
                )
        if not directory.restore_log(log):
            print("warning: rewrote metrics.jsonl, which was damaged", flush=True)
        rows = directory.rows()
        return state, notes, log, rows[-1]["step"] if rows else 0

    def _check_that_none_is_lost(self) -> None:
        """Refuse to start from step 0 if the run had already saved a checkpoint."""
        path, every = self.directory.path, self.config["checkpoint_every"]
        steps = [row["step"] for row in self.directory.rows()]
        # Older run directories have no "saved" file; for them the log decides.
        if every and steps and steps[-1] > every:
            reached = f"the log of {path} reaches step {steps[-1]}"
        elif self.directory.was_saved():
            reached = f"a checkpoint was saved in {path}"
        else:
            return
        raise checkpoint.CheckpointError(
            f"{reached}, but no checkpoint exists; restore one from a backup, or "
            "delete the run directory to start again"
        )

    def train(self) -> dict[str, Any]:
        program, config = self.program, self.config
        total = config["steps"]
        pending: list[tuple[int, int, Any]] = []
        dispatches = feed(
            program.source, program.devices, config, self.step, self.source_state
        )
        self.report(self.step, None)
        # The row of an evaluation that a signal interrupted. The checkpoint of that
        # step contains the log, so it is written again.
        if self.step and self._log() is not None:
            self._save(again=True)
        for dispatch in self._guarded(dispatches, pending):
            self.state, sums = program.train(self.state, dispatch)
            self.step = dispatch.last
            self.source_state = dispatch.source_state
            pending.append((dispatch.last, dispatch.count, sums))
            log, evaluate, save = (self._due(key) for key in EVERY)
            stopping = self.stop.received()
            boundary = log or evaluate or save or stopping
            self._read(pending, 0 if boundary else IN_FLIGHT)
            row = self._log()
            # Save before printing: printing fails if the terminal is closed.
            if save or stopping:
                self._save()
            stops = stopping and self.step < total
            with contextlib.suppress(OSError) if stops else contextlib.nullcontext():
                self.report(self.step, row)
            if stops:
                raise Interrupted(stopping)
        return self._finish()

    def _guarded(
        self, dispatches: Iterable[Any], pending: list[tuple[int, int, Any]]
    ) -> Iterator[Any]:
        """The same; if a signal has also ended the stream's workers, a checkpoint."""
        try:
            yield from dispatches
        except ChildProcessError:
            number = self.stop.received()
            if not number:
                raise
            self._read(pending, 0)
            self._save()
            raise Interrupted(number) from None

    def _due(self, key: str) -> bool:
        every = self.config[key]
        last = self.step == self.config["steps"]
        return last or (every > 0 and self.step % every == 0)

    def _read(self, pending: list[tuple[int, int, Any]], keep: int) -> None:
        """Add the sums of finished steps to the window; raise on non-finite loss."""
        while len(pending) > keep:
            last, count, stacked = pending.pop(0)
            stacked = self.program.devices.fetch(stacked)
            for index in range(count):
                sums = {key: float(values[index]) for key, values in stacked.items()}
                if not math.isfinite(sums["loss"]):
                    raise Diverged(
                        f"the training loss is {sums['loss']} at step "
                        f"{last - count + 1 + index} (learning rate "
                        f"{sums['rate']:g}); {self._kept()}"
                    )
                self.window.add(sums)

    def _log(self) -> dict[str, Any] | None:
        """Append the log row of this step if it is due and not yet written."""
        log, evaluate = self._due("log_every"), self._due("eval_every")
        if self.logged == self.step or not (log or evaluate):
            return None
        measured = self._evaluate() if evaluate else {}
        row = {"step": self.step, **(self.window.close() if log else {}), **measured}
        self.log += hosts.from_first(lambda: self.directory.append_row(row))
        self.logged = self.step
        for writer in self.writers:
            writer.write(row)
        return row

    def _evaluate(self) -> dict[str, float]:
        measured: dict[str, float] = {}
        splits: tuple[tuple[Split, str], ...] = (
            ("train", "clean_train"),
            ("test", "test"),
        )
        try:
            for split, name in splits:
                found = self.program.evaluate(self.state, split, self.stop.check)
                if not math.isfinite(found["loss"]):
                    self._check(self.program.fetch(self.state))
                    raise Diverged(
                        f"the loss of the {split} set is {found['loss']} after step "
                        f"{self.step}; {self._kept()}"
                    )
                measured |= {f"{name}_{key}": value for key, value in found.items()}
            if self.program.ema_decay:
                found = self.program.evaluate(
                    self.state, "test", self.stop.check, averaged=True
                )
                measured |= {f"ema_test_{key}": found[key] for key in found}
        except Interrupted:
            # Evaluations may be long: abandon this one and repeat it on resume.
            self._save()
            raise
        return measured

    def _save(self, again: bool = False) -> None:
        if self.step == self.saved and not again:
            return
        notes = {
            "seconds": self._seconds(),
            "window": self.window.notes(),
            "log": self.log.decode(),
            "source_state": self.source_state.hex(),
        }
        host = self.program.fetch(self.state)
        # The loss was computed before the last update, so check the weights too.
        self._check(host)
        hosts.from_first(lambda: self.directory.save(self.step, host, notes))
        self.saved = self.step

    def _check(self, host: Any) -> None:
        if name := not_finite(host):
            where = f"{name} is not finite after step {self.step}"
            raise Diverged(f"{where}; {self._kept()}")

    def _kept(self) -> str:
        if self.saved < 0:
            return "no checkpoint was saved before that"
        return f"the last good checkpoint is kept in {self.directory.checkpoints}"

    def _seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    def _finish(self) -> dict[str, Any]:
        return hosts.from_first(self._write_result)

    def _write_result(self) -> dict[str, Any]:
        device = self.program.devices.devices[0]
        measured: dict[str, Any] = {}
        for row in self.directory.rows():
            measured |= row  # keeps the last value of each metric
        result = {
            "status": "finished",
            **measured,
            "parameters": self.program.num_parameters,
            "seconds": round(self._seconds(), 3),
            "device": f"{self.program.devices.count} x {device.device_kind}",
            "jax": jax.__version__,
            **provenance.version(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            provenance.CONVOLUTIONS: kernels.library(),
        }
        self.directory.finish(result)
        return result


def _silent(step: int, row: dict[str, Any] | None) -> None:
    del step, row
