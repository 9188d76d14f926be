"""Training of the runs of a study, in one process or several.

Finished runs are skipped, stopped runs resume, and runs that another process holds
are left to it. The same command therefore restarts a study, or joins it from another
terminal.

The seeds of a shape train one after another. Stacked into one program by vmap, three
of them took 1.8 times as long on a CPU core (the digits study's depths 8 and 20),
because grouped convolutions are slow there. This was not measured on other backends.
"""

import collections
import dataclasses
import functools
import pathlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import jax

from cnn_jax.data import sources
from cnn_jax.names import ConfigError
from cnn_jax.runtime import backend
from cnn_jax.study import failures, likeness, processes
from cnn_jax.study.plan import Run, merge
from cnn_jax.training.interrupt import Interrupted, StopRequest
from cnn_jax.training.lock import InUse
from cnn_jax.training.loop import Diverged, fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Event:
    """A progress report on one run of a study.

    Attributes:
      run: the run.
      step: its optimizer steps so far.
      row: the log row of that step, or None.
      status: 'running', or the outcome: 'finished', 'skipped' (it was finished
        before), 'diverged', 'failed', or 'elsewhere' (another process holds it).
      message: why the run did not finish, in one line.
    """

    run: Run
    step: int = 0
    row: dict[str, Any] | None = None
    status: str = "running"
    message: str = ""


Report = Callable[[Event], None]

# Statuses of runs that finished, and of those that have a result on disk.
ENDED = ("finished", "skipped")
RESULTS = (*ENDED, "diverged")

# A run whose process dies this often has failed.
DEATHS = 2


def default_workers(runs: Sequence[Run]) -> int:
    """Default number of processes: one per core on CPU, one with a GPU or TPU.

    Small networks on small images gain little from a second core, so on CPU it is
    faster to train two runs at a time than one after the other.
    """
    if jax.default_backend() != "cpu":
        return 1
    return max(1, min(backend.capacity(), len(_shapes(runs)), 8))


def execute(
    runs: Sequence[Run],
    directory: pathlib.Path,
    report: Report,
    workers: int = 1,
    command: str = "",
) -> list[Event]:
    """Train all unfinished runs.

    Runs of one shape share a compiled program. A run that fails (also one without a
    usable checkpoint) or diverges is reported and does not stop the others. The
    traceback of a failed run is written to ``failures/``, and the next command tries
    the run again.

    Args:
      runs: from `cnn_jax.study.expand`.
      directory: the study's directory.
      report: called in this process as runs progress.
      workers: number of training processes, each on its share of the cores; 1 for
        this process alone, 0 for `default_workers`. If a worker dies, another takes
        over its run; a run during which two of them died has failed.
      command: identifies the command that trains, if several calls train for it: a
        run that failed in one call is not tried in the others.

    Returns:
      The last event of every run that did not finish.

    Raises:
      ConfigError: a run's directory holds another config.
      Interrupted: a signal asked to stop; runs in progress saved a checkpoint.
    """
    last: dict[Run, Event] = {}

    def remember(event: Event) -> None:
        before = last[event.run].status if event.run in last else "running"
        # Every worker reports how a run ended. It may have failed in one, and another
        # command may have finished it since.
        if before not in RESULTS and (before != "failed" or event.status in RESULTS):
            last[event.run] = event
            report(event)

    deaths: collections.Counter[str] = collections.Counter()

    def lose(name: str, ending: str) -> None:
        deaths[name] += 1
        if deaths[name] < DEATHS:
            return
        message = (
            f"its process ended {DEATHS} times during the run, at last {ending}; "
            "memory may be short: try fewer --workers"
        )
        failures.record(directory, name, command, message, "")
        [run] = [run for run in runs if run.name == name]
        remember(Event(run, 0, None, "failed", message))

    changed: set[str] = set()
    for run in runs:
        run_directory = directory_of(run, directory)
        run_directory.check_config(run.config)
        changed.update(run_directory.changed_plugins(run.config))
    if changed:
        print(
            f"warning: the code of {', '.join(sorted(changed))} has changed since the "
            f"study in {directory} began; its finished runs are kept",
            flush=True,
        )
    workers, command = workers or default_workers(runs), command or new_command()
    left, before = list(runs), -1
    with StopRequest() as stop:
        # Replace dead workers.
        while workers > 1 and left and deaths.total() > before:
            stop.check()
            before = deaths.total()
            work, most = functools.partial(train_all, command), min(workers, len(left))
            processes.share_work(work, left, directory, remember, lose, most)
            left = [r for r in runs if r not in last or last[r].status == "running"]
        # What ended a worker must not be trained in this process. It is still there
        # if another command has taken it over.
        for run in [run for run in left if deaths[run.name]]:
            left.remove(run)
            words = "another process took it over from a worker that died"
            remember(Event(run, 0, None, "elsewhere", words))
        # All runs for a single worker, else those that others held.
        train_all(command, left, directory, remember, _nothing, stop)
    return [e for e in last.values() if e.status not in ENDED]


def new_command() -> str:
    """A name for a command, different from all others on any machine."""
    return uuid.uuid4().hex


def directory_of(run: Run, directory: pathlib.Path) -> RunDirectory:
    """The run directory of a run of the study in ``directory``."""
    return RunDirectory(directory / "runs" / run.name)


def ended(run: Run, result: dict[str, Any], status: str) -> Event:
    """The event of a run that has a result.

    Args:
      run: the run.
      result: the result in its directory.
      status: status to report if the run finished: 'finished' or 'skipped'.
    """
    if result["status"] == "finished":
        return Event(run, run.config["steps"], result, status)
    return Event(run, 0, None, result["status"], result["message"])


def _shapes(runs: Sequence[Run]) -> list[list[Run]]:
    """Group the runs that differ only in their seed."""
    groups: list[tuple[dict[str, Any], list[Run]]] = []
    for run in runs:
        shape = merge(run.config, {"seed": 0})
        for known, members in groups:
            if known == shape:
                members.append(run)
                break
        else:
            groups.append((shape, [run]))
    return [members for _, members in groups]


def train_all(
    command: str,
    runs: Sequence[Run],
    directory: pathlib.Path,
    report: Report,
    begin: Callable[[str], None],
    stop: StopRequest,
) -> None:
    """Train, in this process, the runs that no other process holds.

    Shapes that another process is training come last, so that two processes do not
    compile the same program.

    Args:
      command: see `execute`.
      runs: the runs of a study.
      directory: the study's directory.
      report: called as runs progress.
      begin: called with the name of every run that is about to be trained.
      stop: asks to stop.

    Raises:
      ConfigError: a run's directory holds another config.
      Interrupted: a signal asked to stop.
    """
    trainer, later = _Trainer(command, directory, report, begin, stop), []
    for group in _shapes(runs):
        if any(directory_of(run, directory).held() for run in group):
            later.append(group)
        else:
            trainer.train(group)
    for group in later:
        trainer.train(group)


@dataclasses.dataclass
class _Trainer:
    """Trains runs in this process, with one program for the runs of one shape."""

    command: str
    directory: pathlib.Path
    report: Report
    begin: Callable[[str], None]
    stop: StopRequest
    opened: dict[str, sources.Source] = dataclasses.field(default_factory=dict)

    def train(self, group: Sequence[Run]) -> None:
        """Train the runs of one shape and report how each ended."""
        program: Program | None = None
        for run in group:
            self.stop.check()
            attempt = failures.Attempt(self.directory, run.name, self.command)
            event = _outcome(run, attempt)
            try:
                if event is None:
                    self.begin(run.name)
                if event is None and program is None:
                    program = self._program(run)
                    event = _outcome(run, attempt)  # another worker may have tried it
                if event is None:
                    assert program is not None
                    result = fit_or_record(
                        program, run.seed, attempt, functools.partial(self.tell, run)
                    )
                    event = ended(run, result, "finished")
                    failures.forget(self.directory, run.name)
            except InUse as error:
                event = Event(run, 0, None, "elsewhere", str(error))
            except (ConfigError, Interrupted):
                raise
            except failures.Tried as error:
                event = Event(run, 0, None, "failed", str(error))
            except Exception as error:
                message = attempt.failed() or attempt.fail(error)
                event = Event(run, 0, None, "failed", message)
            self.report(event)

    def tell(self, run: Run, step: int, row: dict[str, Any] | None) -> None:
        """Report a step of a run."""
        self.report(Event(run, step, row))

    def _program(self, run: Run) -> Program:
        section = run.config["dataset"]
        key = repr(sorted(section.items()))
        if key not in self.opened:
            self.opened[key] = sources.open_source(section)
        program = Program(run.config, self.opened[key])
        likeness.check(program, self.directory)
        return program


def fit_or_record(
    program: Program,
    seed: int,
    directory: RunDirectory,
    report: Callable[[int, dict[str, Any] | None], None],
) -> dict[str, Any]:
    """Train a run to its end, or record that it diverged.

    Args:
      program: of the run.
      seed: of the run.
      directory: of the run.
      report: see `cnn_jax.training.loop.fit`.

    Returns:
      The result, whose 'status' is 'finished' or 'diverged'.
    """
    try:
        return fit(program, seed, directory, report)
    except Diverged as error:
        mark = {"status": "diverged", "message": str(error)}
    # Another process may have finished the run since: keep its result.
    with directory.open_for_training({**program.config, "seed": seed}):
        found = directory.result()
        if found is None:
            directory.finish(mark)
        return found or mark


def _outcome(run: Run, attempt: failures.Attempt) -> Event | None:
    """How a run ended, in any command, or failed, in this one; else None."""
    result = attempt.result()
    if result is not None:
        return ended(run, result, "skipped")
    message = attempt.failed()
    return None if message is None else Event(run, 0, None, "failed", message)


def _nothing(name: str) -> None:
    """For a process that need not tell what it trains."""
