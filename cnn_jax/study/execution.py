"""Training of the runs of a study, in one process or several.

Finished runs are skipped, stopped runs resume, and runs that another process holds
are left to it. The same command therefore restarts a study, or joins it from another
terminal.

The seeds of a shape train one after another. Stacked into one program by vmap, three
of them took 1.8 times as long on a CPU core (the digits study's depths 8 and 20),
because grouped convolutions are slow there. This was not measured on other backends.
"""

import contextlib
import dataclasses
import pathlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from cnn_jax.data import sources
from cnn_jax.names import ConfigError
from cnn_jax.runtime import backend
from cnn_jax.study import processes
from cnn_jax.study.directory import StudyDirectory
from cnn_jax.study.plan import Run, merge
from cnn_jax.training import provenance
from cnn_jax.training.checkpoint import CheckpointError
from cnn_jax.training.config_keys import differences, flatten
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

# The parts of a config that decide a recorded value; families may differ in them.
DECIDING = {
    provenance.FINGERPRINT: ("dataset",),
    provenance.BN_IMAGES: ("batch_size", "parallel.bn_group_size"),
}


def default_workers(runs: Sequence[Run]) -> int:
    """Default number of processes: one per core on CPU, one with a GPU or TPU.

    Small networks on small images gain little from a second core, so on CPU it is
    faster to train two runs at a time than one after the other.
    """
    if jax.default_backend() != "cpu":
        return 1
    return max(1, min(len(backend.cores()), len(_shapes(runs)), 8))


def execute(
    runs: Sequence[Run], directory: pathlib.Path, report: Report, workers: int = 1
) -> list[Event]:
    """Train all unfinished runs.

    Runs of one shape share a compiled program. A run that fails or diverges is
    reported and does not stop the others. The traceback of a failed run is written to
    ``failures/``, and the next call tries the run again.

    Args:
      runs: from `cnn_jax.study.expand`.
      directory: the study's directory.
      report: called in this process as runs progress.
      workers: number of training processes, each on its share of the cores; 1 for
        this process alone, 0 for `default_workers`. If a worker dies, the others take
        over its run.

    Returns:
      The last event of every run that did not finish.

    Raises:
      ConfigError: a run's directory holds another config.
      CheckpointError: all checkpoints of a run are damaged.
      Interrupted: a signal asked to stop; runs in progress saved a checkpoint.
    """
    last: dict[Run, Event] = {}

    def remember(event: Event) -> None:
        last[event.run] = event
        report(event)

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
    workers = workers or default_workers(runs)
    if workers > 1:
        processes.share_work(_work, runs, directory, remember, workers)
    ended = {run for run, event in last.items() if event.status != "running"}
    # All runs for a single worker, else those that a dead worker left unfinished.
    left = [run for run in runs if run not in ended]
    with StopRequest() as stop:
        _work(left, directory, remember, stop)
    return [e for e in last.values() if e.status not in ("finished", "skipped")]


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


def _work(
    runs: Sequence[Run], directory: pathlib.Path, report: Report, stop: StopRequest
) -> None:
    """Train, in this process, the runs that no other process holds.

    Shapes that another process is training come last, so that two processes do not
    compile the same program.
    """
    opened: dict[str, sources.Source] = {}
    later = []
    for group in _shapes(runs):
        if any(directory_of(run, directory).held() for run in group):
            later.append(group)
        else:
            _train_shape(group, directory, report, opened, stop)
    for group in later:
        _train_shape(group, directory, report, opened, stop)


def _train_shape(
    group: Sequence[Run],
    directory: pathlib.Path,
    report: Report,
    opened: dict[str, sources.Source],
    stop: StopRequest,
) -> None:
    """Train the runs of one shape, with one program."""
    program: Program | None = None
    for run in group:
        stop.check()
        run_directory = directory_of(run, directory)
        previous = run_directory.result()
        if previous is not None:
            report(ended(run, previous, "skipped"))
            continue
        try:
            if program is None:
                section = run.config["dataset"]
                key = repr(sorted(section.items()))
                if key not in opened:
                    opened[key] = sources.open_source(section)
                program = Program(run.config, opened[key])
                _check_alike(program, directory)
            report(ended(run, _train(program, run, run_directory, report), "finished"))
        except InUse as error:
            report(Event(run, 0, None, "elsewhere", str(error)))
        except (ConfigError, CheckpointError, Interrupted):
            raise
        except Exception as error:
            with contextlib.suppress(OSError):  # the disk itself may have failed
                failures = directory / "failures"
                failures.mkdir(parents=True, exist_ok=True)
                (failures / f"{run.name}.txt").write_text(traceback.format_exc())
            first_line, *_ = str(error).split("\n")
            message = f"{type(error).__name__}: {first_line}"
            report(Event(run, 0, None, "failed", message))


def _check_alike(program: Program, directory: pathlib.Path) -> None:
    """Refuse data, batch-norm groups or settings that earlier runs did not have.

    Raises:
      ConfigError: names a run, the key and both values.
    """
    own, config = provenance.recorded(program), program.config
    for run_directory, _ in StudyDirectory(directory).runs():
        other = run_directory.config() or {}
        same = {
            key: not differences(_part(other, *parts), _part(config, *parts))
            for key, parts in DECIDING.items()
        }
        for key, value in own.items():
            before = other.get(key, value)
            if before != value and same.get(key, True):
                raise ConfigError(
                    f"{run_directory.path} was trained with another {key} (was "
                    f"{before!r}, is {value!r}): its results are not comparable; "
                    "choose another workdir"
                )


def _part(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The values of a config under some dotted keys or sections."""
    return {
        key: value
        for key, value in flatten(config).items()
        if any(f"{key}.".startswith(f"{part}.") for part in keys)
    }


def _train(
    program: Program, run: Run, run_directory: RunDirectory, report: Report
) -> dict[str, Any]:
    """Train a run to its end; returns its result, or a record of its divergence."""
    try:
        return fit(
            program,
            run.seed,
            run_directory,
            lambda step, row: report(Event(run, step, row)),
        )
    except Diverged as error:
        mark = {"status": "diverged", "message": str(error)}
    # Another process may have finished the run since: do not overwrite its result.
    with run_directory.open_for_training(run.config):
        found = run_directory.result()
        if found is None:
            run_directory.finish(mark)
        return found or mark
