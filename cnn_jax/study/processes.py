"""The processes that train a study together on one machine."""

import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from typing import Any

from cnn_jax.names import ConfigError
from cnn_jax.runtime import backend, compilation_cache, worker
from cnn_jax.study.plan import Run
from cnn_jax.training.interrupt import SIGNALS, Interrupted, StopRequest

Work = Callable[[Sequence[Run], pathlib.Path, Any, Any, StopRequest], None]
Lost = Callable[[str, str], None]

# Minimum seconds between a worker's reports of steps without a log row.
REPORT_EVERY = 0.2


def share_work(
    work: Work,
    runs: Sequence[Run],
    directory: pathlib.Path,
    report: Any,
    lost: Lost,
    workers: int,
) -> None:
    """Train in several processes; returns when all have ended.

    Args:
      work: trains, in its process, the runs that no other process holds; a picklable
        function of (runs, directory, report, begin, stop request), which calls
        ``begin`` with the name of every run that it is about to train.
      runs: the runs of a study.
      directory: the study's directory.
      report: called in this process with the workers' events.
      lost: called in this process where a worker has died, with the name of the run
        that it was training and with how it ended.
      workers: number of processes.

    Raises:
      ConfigError: a worker cannot be started, or found a mistake.
      Interrupted: a signal asked to stop; runs in progress saved a checkpoint.
    """
    context = multiprocessing.get_context("spawn")
    own = backend.cores()
    # One pipe per worker: a killed worker cannot block the others, and its pipe
    # closes with it.
    pipes = [context.Pipe(duplex=False) for _ in range(workers)]
    processes = {
        receiver: context.Process(
            target=_worker,
            args=(
                work,
                runs,
                directory,
                sender,
                own[number::workers] or own,
                compilation_cache.enabled(),
            ),
        )
        for number, (receiver, sender) in enumerate(pipes)
    }
    started: list[Any] = []
    open_ends = list(processes)
    begun: dict[Any, str] = {}  # the run that each worker is training

    def take(end: Any, news: Any) -> None:
        if isinstance(news, Exception):
            raise news
        if isinstance(news, str):
            begun[end] = news
            return
        if news.status != "running":
            begun.pop(end, None)
        # Another worker holds a run that is 'elsewhere', and reports on it.
        if news.status != "elsewhere":
            report(news)

    def close(end: Any) -> None:
        open_ends.remove(end)
        processes[end].join(10)
        status = processes[end].exitcode
        if status and end in begun and not stop.received:
            lost(begun[end], _ending(status))

    with StopRequest() as stop:
        signalled = False
        try:
            # Ctrl-C reaches all processes: block it until a worker has started.
            resource_tracker.ensure_running()  # starting it later unblocks signals
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                for process in processes.values():
                    process.start()
                    started.append(process)
            except OSError as error:
                raise ConfigError(
                    f"cannot start worker {len(started) + 1} of {workers}: "
                    f"{error.strerror}; use fewer --workers"
                ) from None
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            for _, sender in pipes:
                sender.close()  # the workers have their own copies
            while open_ends:
                if stop.received and not signalled:
                    signalled = True
                    for process in started:
                        process.terminate()  # SIGTERM: save a checkpoint and exit
                ready = multiprocessing.connection.wait(open_ends, 0.1)
                if not ready and not any(process.is_alive() for process in started):
                    for end in list(open_ends):
                        close(end)  # a grandchild still holds a pipe open
                for end in [end for end in open_ends if end in ready]:
                    try:
                        news = end.recv()
                    except (EOFError, OSError):  # it ended, perhaps in mid-message
                        close(end)
                    else:
                        take(end, news)
        finally:
            for receiver, _ in pipes:
                receiver.close()  # so that no worker blocks on sending
            for process in started:
                process.terminate()
            for process in started:
                process.join()
        if stop.received:
            raise Interrupted(stop.received)


def _ending(status: int) -> str:
    """How a process ended, from its exit code."""
    if status > 0:
        return f"with status {status}"
    known = {number.value: number.name for number in signal.Signals}
    return f"by {known.get(-status, f'signal {-status}')}"


def _worker(
    work: Work,
    runs: Sequence[Run],
    directory: pathlib.Path,
    events: multiprocessing.connection.Connection,
    cores: Sequence[int],
    keep_compiled: bool,
) -> None:
    """The main function of a worker process, which is pinned to its cores."""
    worker.prepare(cores, keep_compiled)
    # Ignore a Ctrl-C that arrives after the work is done.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    parent = os.getppid()
    reported = 0.0

    def tell(news: Any) -> None:
        try:
            events.send(news)
        except OSError:  # the parent has ended or closed the pipe
            os.kill(os.getpid(), signal.SIGTERM)

    def report(event: Any) -> None:
        nonlocal reported
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        now = time.monotonic()
        plain = event.status == "running" and event.row is None
        if not plain or now - reported > REPORT_EVERY:
            reported = now
            tell(event)

    try:
        with StopRequest() as stop:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            work(runs, directory, report, tell, stop)
    except (Interrupted, KeyboardInterrupt):
        pass  # the parent received the same signal
    except ConfigError as error:
        tell(error)
