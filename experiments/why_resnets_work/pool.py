"""Tasks computed in several processes, one a core on CPU."""

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from cnn_jax.runtime import backend, compilation_cache
from cnn_jax.study import execution
from cnn_jax.training.interrupt import Interrupted, StopRequest

# Seconds between looks at signals and at the parent process.
LOOK_EVERY = 0.2


class Task(Protocol):
    """Work that keeps its result on disk; it is sent to a process."""

    @property
    def name(self) -> str:
        """What it is called in reports."""

    def cached(self) -> Any:
        """The result if it is there, else None."""

    def compute(self) -> Any:
        """Compute the result, keep it and return it."""


def compute_all(
    tasks: Sequence[Task], workers: int, report: Callable[[str], None]
) -> list[Any]:
    """The result of every task; what is kept is not computed again.

    Args:
      tasks: what is to be done, longest first.
      workers: processes; 0 for one a core on CPU, and none beside this one on a
        GPU or TPU, which a single process holds.
      report: called with the name of each task as it is done.

    Returns:
      Results in the order of the tasks.

    Raises:
      Interrupted: a signal asked to stop; what was done is kept.
      ChildProcessError: a process was killed; what was done is kept.
      Exception: what a task raised, as soon as it did.
    """
    results: dict[int, Any] = {}
    for number, task in enumerate(tasks):
        found = task.cached()
        if found is not None:
            results[number] = found
            report(task.name)
    todo = [number for number in range(len(tasks)) if number not in results]
    cores = backend.cores()
    if not workers:
        workers = min(len(cores), 8) if jax.default_backend() == "cpu" else 1
    workers = min(workers, len(todo))
    if workers <= 1:
        for number in todo:
            with StopRequest() as stop:
                results[number] = tasks[number].compute()
            report(tasks[number].name)
            if stop.received:
                raise Interrupted(stop.received)
        return [results[number] for number in range(len(tasks))]
    context = multiprocessing.get_context("spawn")
    places: Any = context.Queue()
    for number in range(workers):
        places.put(cores[number::workers] or cores)
    executor = concurrent.futures.ProcessPoolExecutor(
        workers,
        context,
        _start,
        (places, os.getpid(), compilation_cache.enabled()),
    )
    with StopRequest() as stop:
        others = multiprocessing.active_children()
        futures = {executor.submit(_compute, tasks[n]): n for n in todo}
        own = [p for p in multiprocessing.active_children() if p not in others]
        ends = [process.sentinel for process in own]
        left = set(futures)
        try:
            while left and not stop.received:
                # The executor itself does not look at processes that it started
                # after its first wait began.
                if multiprocessing.connection.wait(ends, timeout=0):
                    raise concurrent.futures.process.BrokenProcessPool
                done, left = concurrent.futures.wait(
                    left, LOOK_EVERY, concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    results[futures[future]] = future.result()
                    report(tasks[futures[future]].name)
        except concurrent.futures.process.BrokenProcessPool:
            # Tasks start in their order; which one it was, nobody knows.
            begun = [tasks[n].name for n in todo if n not in results][:workers]
            raise ChildProcessError(
                f"a process was killed, or out of memory, at {' or '.join(begun)}; "
                "what was done is kept, and the same command resumes"
            ) from None
        finally:
            # Tasks write their results in one go, so they can be cut off.
            executor.shutdown(wait=not left, cancel_futures=True)
            if left:
                for process in own:
                    process.terminate()
    if left:
        raise Interrupted(stop.received)
    return [results[number] for number in range(len(tasks))]


def _compute(task: Task) -> Any:
    return task.compute()


def _start(places: Any, parent: int, keep_compiled: bool) -> None:
    """A worker's beginning: its own cores, and an end with its parent."""
    execution.prepare_process(places.get(), keep_compiled)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
