"""A study as cluster jobs, through submitit: any number of workers, one directory.

Workers claim runs through the run directories' locks, so jobs on many machines and
repeated commands share a study without training a run twice. If a worker dies,
another worker or a replacement job resumes its run from the last checkpoint.
"""

import dataclasses
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from cnn_jax import names
from cnn_jax.names import ConfigError
from cnn_jax.runtime import backend, compilation_cache, selfcheck, worker
from cnn_jax.study import execution
from cnn_jax.study.execution import Event, Report
from cnn_jax.study.plan import Run
from cnn_jax.training import checkpoint
from cnn_jax.training.interrupt import Interrupted, StopRequest

Cluster = Literal["local", "slurm"]

# Seconds between polls of the run directories and the jobs.
LOOK_EVERY = {"local": 0.5, "slurm": 5.0}
# Signals with which submitit announces the time limit (by default, the second).
LIMITS = (signal.SIGUSR1, signal.SIGUSR2)
# Statuses of runs that a job may still train.
UNDECIDED = ("running", "elsewhere")


@dataclasses.dataclass
class Worker:
    """The function of a job; picklable, so that it can run on another machine.

    Attributes:
      runs: the remaining runs.
      directory: the study's directory.
      cores: CPU cores to pin the job to; () for those that the cluster assigns.
      keep_compiled: whether the job uses the compilation cache.
      command: identifies the command that the job trains for, see
        `execution.execute`.
    """

    runs: Sequence[Run]
    directory: pathlib.Path
    cores: Sequence[int] = ()
    keep_compiled: bool = False
    command: str = ""

    def __call__(self) -> list[Event] | Exception:
        """Train until every remaining run is finished or held by another process.

        At the time limit, the run saves its checkpoint before submitit, whose signal
        announces the limit, queues the job again and exits.

        Returns:
          The last event of every run that failed or diverged; or the error that
          ended the job, if it is one that is reported in a single line.
        """
        handlers = {int(number): signal.getsignal(number) for number in LIMITS}
        stop = StopRequest(taken=LIMITS)
        try:
            with stop:
                return self._train(stop)
        finally:  # also where a second signal did not wait for the checkpoint
            requeue = handlers.get(stop.received)
            if callable(requeue):
                _requeue(requeue, stop.received)

    def _train(self, stop: StopRequest) -> list[Event] | Exception:
        worker.prepare(self.cores, self.keep_compiled)
        selfcheck.check_backend()  # on the machine that trains
        unfinished: list[Event] = []
        left = list(self.runs)
        trained = True
        # Another worker may have died and released its run in the meantime.
        while left and trained:
            trained = False

            def watch(event: Event) -> None:
                nonlocal trained
                trained = trained or (event.step > 0 and event.status == "running")

            try:
                stop.check()
                events = execution.execute(
                    left, self.directory, watch, command=self.command
                )
            except ConfigError as error:
                return error
            except Interrupted:
                return unfinished
            left = [event.run for event in events if event.status == "elsewhere"]
            unfinished += [event for event in events if event.status != "elsewhere"]
        return unfinished

    def checkpoint(self, *arguments: Any) -> Any:
        """Called by submitit at the time limit: resubmits the same worker."""
        import submitit

        del arguments
        return submitit.helpers.DelayedSubmission(self)


def _requeue(handler: Callable[[int, Any], Any], number: int) -> None:
    """Let submitit queue the job again, which ends the process.

    If it cannot, because the job was queued again too often or because of the cluster,
    the job ends, and the command may replace it.
    """
    from submitit.core.utils import UncompletedJobError

    try:
        handler(number, None)
    except (UncompletedJobError, subprocess.SubprocessError, OSError) as error:
        print(f"warning: the job is not queued again: {error}", file=sys.stderr)


def execute(
    runs: Sequence[Run],
    directory: pathlib.Path,
    report: Report,
    workers: int,
    cluster: Cluster,
    resources: dict[str, Any],
) -> list[Event]:
    """Train all unfinished runs in jobs, and wait for the jobs.

    Args:
      runs: from `cnn_jax.study.expand`.
      directory: the study's directory, shared by all machines.
      report: called in this process as runs progress.
      workers: maximum number of concurrent jobs.
      cluster: 'slurm', or 'local' for jobs on this machine.
      resources: keyword arguments of `submitit.AutoExecutor.update_parameters`.

    Returns:
      The last event of every run that did not finish.

    Raises:
      ConfigError: submitit is not installed, the cluster is not available, a resource
        is unknown, or a run's directory holds another config.
      Interrupted: a signal asked to stop; the jobs received it too.
    """
    for run in runs:
        execution.directory_of(run, directory).check_config(run.config)
    watch = _Watch(runs, directory, report)
    executor = _executor(directory, cluster, resources)
    with StopRequest() as stop:
        # Replace dead jobs, as long as each round of jobs makes progress.
        seen, command = None, execution.new_command()
        while watch.left() and watch.progress() != seen:
            seen = watch.progress()
            own = backend.cores() if cluster == "local" else []
            workers = min(workers, len(watch.left()))
            jobs = _submit(
                executor,
                [
                    Worker(
                        watch.left(),
                        directory.absolute(),
                        own[index::workers] or own,
                        compilation_cache.enabled(),
                        command,
                    )
                    for index in range(workers)
                ],
                cluster,
            )
            while not _done(jobs, cluster):
                watch.look()
                if stop.received:  # repeated: a job may not listen yet
                    _stop(jobs, cluster)
                time.sleep(LOOK_EVERY[cluster])
            for job in jobs:
                watch.take(job)
            watch.look()
            stop.check()
    return watch.unfinished()


class _Watch:
    """Tracks a study's runs through their directories and the results of jobs."""

    def __init__(self, runs: Sequence[Run], directory: pathlib.Path, report: Report):
        self.runs, self.directory, self.report = list(runs), directory, report
        self.events: dict[Run, Event] = {}
        for run in self.runs:
            result = execution.directory_of(run, directory).result()
            if result is not None:
                self._tell(execution.ended(run, result, "skipped"))

    def left(self) -> list[Run]:
        """Runs that have not ended."""
        return [run for run in self.runs if self._status(run) in UNDECIDED]

    def progress(self) -> list[Any]:
        """A value that changes whenever jobs make progress."""
        found: list[Any] = [len(self.left())]
        for run in self.left():
            run_directory = execution.directory_of(run, self.directory)
            found += checkpoint.steps(run_directory.checkpoints)[-1:]
        return found

    def look(self) -> None:
        """Report changes in the run directories."""
        for run in self.runs:
            status = self._status(run)
            if status in execution.RESULTS:
                continue
            run_directory = execution.directory_of(run, self.directory)
            result = run_directory.result()
            if result is not None:  # also of a run that failed in one of the jobs
                self._tell(execution.ended(run, result, "finished"))
            elif status in UNDECIDED:
                rows = run_directory.rows()
                if rows and rows[-1]["step"] != self._step(run):
                    self._tell(Event(run, rows[-1]["step"], rows[-1]))

    def take(self, job: Any) -> None:
        """Report the events of an ended job; a killed job has none."""
        path = job.paths.result_pickle
        if not path.exists():
            return
        outcome, content = pickle.loads(path.read_bytes())
        if outcome == "error":
            last = content.strip().splitlines()[-1]
            raise ConfigError(
                f"job {job.job_id} failed: {last} (its log is in {path.parent})"
            )
        if isinstance(content, Exception):
            raise content
        for event in content:
            if event.run in self.left():
                self._tell(event)

    def unfinished(self) -> list[Event]:
        """The last event of every run that did not finish."""
        words = "no job is training it; run the same command again to resume"
        for run in self.left():
            self.events[run] = Event(run, 0, None, "elsewhere", words)
        return [e for e in self.events.values() if e.status not in execution.ENDED]

    def _status(self, run: Run) -> str:
        return self.events[run].status if run in self.events else "running"

    def _step(self, run: Run) -> int:
        return self.events[run].step if run in self.events else -1

    def _tell(self, event: Event) -> None:
        self.events[event.run] = event
        self.report(event)


def parse_resources(texts: Sequence[str]) -> dict[str, Any]:
    """Parse the resources of a job from KEY=VALUE strings.

    Raises:
      ConfigError: a string does not have this form.
    """
    try:
        return names.parse_fields(texts)
    except ConfigError as error:
        raise ConfigError(f"--job: {error}") from None


def _executor(
    directory: pathlib.Path, cluster: Cluster, resources: dict[str, Any]
) -> Any:
    try:
        import submitit
    except ImportError:
        raise ConfigError(
            "--launcher needs a package that is not installed (submitit): run "
            "`pip install -e '.[launcher]'` in the project's folder"
        ) from None
    try:
        executor = submitit.AutoExecutor(directory / "jobs", cluster=cluster)
        executor.update_parameters(**resources)
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
        first, *_ = str(error).splitlines()
        raise ConfigError(f"--launcher={cluster}: {first}") from None
    return executor


def _submit(executor: Any, workers: Sequence[Worker], cluster: Cluster) -> list[Any]:
    """Submit a job for each worker."""
    import submitit

    # Otherwise local jobs would receive a terminal's Ctrl-C as well as our SIGTERM.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return [executor.submit(function) for function in workers]
    except (submitit.core.utils.FailedJobError, OSError) as error:
        last = str(error).strip().splitlines()[-1]
        raise ConfigError(f"--launcher={cluster} rejected the job: {last}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _done(jobs: Sequence[Any], cluster: Cluster) -> bool:
    """Whether all jobs have ended or disappeared."""
    if cluster == "local":
        return all(job.done() for job in jobs)
    running = [job.job_id for job in jobs if not job.paths.result_pickle.exists()]
    if not running:
        return True
    # submitit queries sacct, which does not work on clusters without accounting.
    command = ["squeue", "--noheader", "--format=%A", f"--jobs={','.join(running)}"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:  # any other error: the controller is busy, ask again later
        return "Invalid job id" in asked.stderr
    return not asked.stdout.strip()


def _stop(jobs: Sequence[Any], cluster: Cluster) -> None:
    """Tell jobs to write a checkpoint and end (SIGTERM)."""
    for job in jobs:
        if cluster == "slurm":
            job.cancel(check=False)
        elif not job.done():
            # submitit would send SIGKILL after one second.
            os.kill(int(job.job_id), signal.SIGTERM)
