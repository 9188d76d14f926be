"""Time contenders alternately, each in a separate process.

Separate processes keep the memory figures, threads and allocators of the frameworks
apart. The contenders alternate, one block of steps each, round after round. Other
load on the machine thus affects all of them, and a round compares adjacent blocks.
"""

import contextlib
import dataclasses
import functools
import gc
import math
import multiprocessing
import os
import pathlib
import resource
import signal
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from cnn_jax import kernels, names
from cnn_jax.runtime import backend, worker
from experiments.benchmark.case import Case
from experiments.benchmark.contender import peak_rate
from experiments.benchmark.peers import PEERS, NoPeer

OURS = "cnn_jax"
CONTENDERS = {OURS: "experiments.benchmark.contender:CnnJax", **PEERS}
MOST_STEPS = 2000  # per block


class ChildError(RuntimeError):
    """An error in a child process, in one line."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine that the numbers come from."""

    platform: str  # in jax's words: 'cpu', 'gpu', 'tpu'
    kind: str  # of the devices, in jax's words
    devices: int
    cores: int  # that processes may use
    convolutions: str  # the library that computes them, 'onednn' or 'xla'
    load: float  # mean number of processes that wanted a core in the last minute


@dataclasses.dataclass
class Measurement:
    """The results of a contender, or the `reason` why they are missing."""

    contender: str
    reason: str = ""
    ask: Callable[..., Any] | None = None  # of the child, see `Child.ask`
    steps: int = 0  # per block
    # Mean time of a step in each block.
    seconds: list[float] = dataclasses.field(default_factory=list)
    compile_seconds: float = math.nan  # the first step's time minus a later one's
    parameters: int = 0
    # Peak bytes on the device, or the growth of the process after its imports.
    memory: int = 0
    # Operations per second of the matrix product timed in the same rounds; ours only.
    peak_rates: list[float] = dataclasses.field(default_factory=list)
    loss: float = math.nan  # of the last step

    @property
    def median(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Record an error in the block as the reason."""
        try:
            yield
        except (NoPeer, ChildError) as error:
            self.reason = str(error)


class Child:
    """A child process that calls functions, one after another."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        # Only the parent handles Ctrl-C, even while the child is still importing.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._process.start()  # the child inherits the handler
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        self._connection.close()  # ends a child that waits for a request
        # After an error or a signal the child may stay busy for minutes.
        self._process.join(0 if kind else 5)
        self._process.kill()
        self._process.join()

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a module-level function in the child and return its result.

        Raises:
          ConfigError, NoPeer: raised by the function.
          ChildError: the function failed in another way, or the child has died.
        """
        try:
            self._connection.send((function, arguments))
            result, error = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            status = self._process.exitcode
            ending = f"the process ended with status {status} (out of memory?)"
            raise ChildError(ending) from None
        if error is not None:
            raise error
        return result


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process and return its result (see `Child.ask`)."""
    with Child() as child:
        return child.ask(function, *arguments)


def machine() -> Machine:
    """Describe the machine, in a fresh process so that its devices stay free."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return in_child(_machine, load)


def measure(
    case: Case, peers: Sequence[str], rounds: int, seconds: float
) -> list[Measurement]:
    """Time a case: this package first, then the peers (keys of `PEERS`).

    Each contender takes so many ``rounds`` of blocks of about so many ``seconds``. If
    this package fails, the peers stop too, as there is nothing to compare them with.

    Raises:
      ConfigError: the case cannot be run here.
    """
    ours, *others = found = [Measurement(name) for name in (OURS, *peers)]
    with contextlib.ExitStack() as stack:
        for one in found:
            if ours.reason:
                break
            with one.attempt():
                one.ask = stack.enter_context(Child()).ask
                answer = one.ask(start, one.contender, case, bool(others))
                one.parameters, one.compile_seconds, step = answer
                block = math.ceil(min(seconds / step, MOST_STEPS) / case.dispatch)
                one.steps = max(1, block) * case.dispatch
                if one.parameters != ours.parameters:
                    raise ChildError(
                        f"has {one.parameters:,} parameters, unlike {OURS}"
                    )
        for _ in range(rounds):
            for one in found:
                if ours.reason or one.reason:
                    continue
                with one.attempt():
                    spent, one.loss = one.ask(run, one.steps)
                    if not math.isfinite(one.loss):
                        raise ChildError(f"the loss is {one.loss}")
                    one.seconds.append(spent)
            if not ours.reason:
                with ours.attempt():
                    rate = ours.ask(peak_rate, case.dtype, case.devices)
                    ours.peak_rates.append(rate)
        for one in found:
            if one.seconds and not one.reason:
                with one.attempt():
                    one.memory = one.ask(memory)
    for other in others:
        if not other.seconds and not other.reason:
            other.reason = f"{OURS} could not be measured"
    return found


# The functions below run in child processes.
_contender: Any = None
_dispatch = 1  # the contender's steps per call
_memory_before = 0


def start(name: str, case: Case, shared: bool) -> tuple[int, float, float]:
    """Build a contender in this process; ``shared`` if others use the same device.

    Returns:
      Number of parameters, seconds of compiling, approximate seconds of a step.
    """
    global _contender, _dispatch, _memory_before
    if shared:  # several processes on one GPU: none may take all of its memory
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    build = names.resolve("contender", CONTENDERS[name], {})
    _memory_before, _dispatch = resident("VmRSS"), case.dispatch
    _contender = build(case)
    once = functools.partial(_contender.run, _dispatch)
    times = timeit.repeat(once, gc.enable, repeat=3, number=1)
    return _contender.parameters, times[0] - times[2], times[2] / _dispatch


def run(steps: int) -> tuple[float, float]:
    """Take a block of steps; return the mean seconds of a step and the last loss."""
    _contender.run(_dispatch)  # refills the caches after another process
    begin = time.perf_counter()
    loss = _contender.run(steps)
    return (time.perf_counter() - begin) / steps, loss


def memory() -> int:
    """Peak bytes of the contender, see `Measurement`."""
    on_device = _contender.device_memory()
    return resident("VmHWM") - _memory_before if on_device is None else on_device


def _machine(load: float) -> Machine:
    first, *_ = devices = jax.devices()
    cores = len(backend.cores())
    about = (first.platform, first.device_kind, len(devices), cores)
    return Machine(*about, kernels.library(), load)


def resident(key: str) -> int:
    """Resident bytes of this process: current ('VmRSS') or peak ('VmHWM')."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _serve(connection: Any) -> None:
    """The main loop of a child, which compiles everything without a cache on disk."""
    worker.end_with_parent()
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    os.environ["TORCH_DYNAMO_AUTOMATIC_DYNAMIC_LOCAL_PGO"] = "0"  # avoids a warning
    jax.config.update("jax_enable_compilation_cache", False)
    # The child ends when the parent closes the connection.
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments = connection.recv()
            result, error = None, None
            try:
                result = function(*arguments)
            except (names.ConfigError, NoPeer) as own:
                error = own
            except Exception as other:  # from any framework; a line of the table
                first_line, *_ = str(other).split("\n")
                error = ChildError(f"{type(other).__name__}: {first_line}")
            connection.send((result, error))
