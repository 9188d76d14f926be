"""Tasks computed in several processes, one per core on CPU."""

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import multiprocessing.connection
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax

from cnn_jax.runtime import backend, compilation_cache, worker
from cnn_jax.training.interrupt import Interrupted, StopRequest

# Takes the number of a task and its result.
Keep = Callable[[int, Any], None]

# Seconds between checks for signals.
LOOK_EVERY = 0.2


@runtime_checkable
class Task(Protocol):
    """A task that is sent to a process and stores its result on disk."""

    @property
    def name(self) -> str:
        """Name in progress reports."""

    def cached(self) -> Any:
        """The stored result, or None."""

    def compute(self) -> Any:
        """Compute the result, store it and return it."""


def compute_all(
    tasks: Sequence[Task], workers: int, report: Callable[[str], None]
) -> list[Any]:
    """Compute the results of all tasks, except stored ones.

    Args:
      tasks: the tasks, longest first.
      workers: number of processes; 0 for one per core on CPU, and only this process
        on a GPU or TPU.
      report: called with the name of each finished task.

    Returns:
      Results in the order of the tasks.

    Raises:
      Interrupted: a signal asked to stop; finished results are stored.
      ChildProcessError: a process was killed; finished results are stored.
      Exception: the first exception of a task, immediately.
    """
    results: dict[int, Any] = {}

    def keep(number: int, result: Any) -> None:
        results[number] = result
        report(tasks[number].name)

    for number, task in enumerate(tasks):
        found = task.cached()
        if found is not None:
            keep(number, found)
    todo = {number: task for number, task in enumerate(tasks) if number not in results}
    if not workers:
        on_cpu = jax.default_backend() == "cpu"
        workers = min(backend.capacity(), 8) if on_cpu else 1
    workers = min(workers, len(todo))
    if workers > 1:
        _in_processes(todo, workers, keep)
    else:
        _here(todo, keep)
    return [results[number] for number in range(len(tasks))]


def _here(todo: dict[int, Task], keep: Keep) -> None:
    """Compute tasks in this process, one after another."""
    for number, task in todo.items():
        with StopRequest() as stop:
            result = task.compute()
        keep(number, result)
        if stop.received:
            raise Interrupted(stop.received)


def _in_processes(todo: dict[int, Task], workers: int, keep: Keep) -> None:
    """Compute tasks in processes, each on its share of the cores; empties ``todo``."""
    context = multiprocessing.get_context("spawn")
    cores, places = backend.cores(), context.Queue()
    for number in range(workers):
        places.put(cores[number::workers] or cores)
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, context, _start, (places, compilation_cache.enabled())
    )
    with StopRequest() as stop:
        others = multiprocessing.active_children()
        futures = {executor.submit(_compute, task): n for n, task in todo.items()}
        own = [p for p in multiprocessing.active_children() if p not in others]
        ends = [process.sentinel for process in own]
        left = set(futures)
        try:
            while left and not stop.received:
                # The executor itself does not watch processes started after its
                # first wait began.
                if multiprocessing.connection.wait(ends, timeout=0):
                    raise concurrent.futures.process.BrokenProcessPool
                done, left = concurrent.futures.wait(
                    left, LOOK_EVERY, concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    keep(futures[future], future.result())
                    del todo[futures[future]]
        except concurrent.futures.process.BrokenProcessPool:
            # Tasks start in order, but it is unknown which one the process ran.
            begun = [task.name for task in todo.values()][:workers]
            raise ChildProcessError(
                "a worker was killed or ran out of memory during "
                f"{' or '.join(begun)}; finished results are kept; run the same "
                "command again to resume"
            ) from None
        finally:
            # Tasks write their results atomically, so they can be killed.
            executor.shutdown(wait=not left, cancel_futures=True)
            if left:
                for process in own:
                    process.terminate()
    if left:
        raise Interrupted(stop.received)


def _compute(task: Task) -> Any:
    return task.compute()


def _start(places: Any, keep_compiled: bool) -> None:
    """Initialise a worker: assign its cores, and make it end with its parent."""
    worker.prepare(places.get(), keep_compiled)
    worker.end_with_parent()
