"""Contenders in turns, each in a process of its own.

Processes keep memory figures apart, and one framework's threads and allocator
away from another's. They work in turns, a block of steps each, round after
round: what else the machine does meets all of them, and a ratio compares blocks
that lie next to each other.
"""

import contextlib
import dataclasses
import functools
import math
import multiprocessing
import os
import pathlib
import resource
import signal
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from cnn_jax import names
from cnn_jax.runtime import backend
from experiments.benchmark.case import Case
from experiments.peers import PEERS, NoPeer

OURS = "cnn_jax"
CONTENDERS = {OURS: "experiments.benchmark.contender:CnnJax", **PEERS}
MOST_STEPS = 2000  # of a block


class ChildError(RuntimeError):
    """What went wrong in a child process, in one line."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where the numbers come from.

    Attributes:
      platform: jax's name: 'cpu', 'gpu', 'tpu'.
      kind: of a device.
      devices: how many there are.
      cores: that processes may use.
      load: how many processes wanted a core over the last minute; 0 where the
        system does not say.
    """

    platform: str
    kind: str
    devices: int
    cores: int
    load: float


@dataclasses.dataclass
class Measurement:
    """A contender's figures; `reason` says why they are missing, if they are.

    Attributes:
      contender: its name.
      seconds: of a step, the mean of each block.
      compile_seconds: first step less a later one.
      parameters: trainable ones.
      memory: peak bytes: on the device, or what the process grew by after its
        imports.
      peak_rates: floating-point operations a second of the matrix product that
        was timed in the same rounds; ours only.
      loss: of the last step.
    """

    contender: str
    reason: str = ""
    seconds: list[float] = dataclasses.field(default_factory=list)
    compile_seconds: float = math.nan
    parameters: int = 0
    memory: int = 0
    peak_rates: list[float] = dataclasses.field(default_factory=list)
    loss: float = math.nan

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)


class Child:
    """A process that answers requests, one after another.

    Args:
      target: what it runs, called with its end of the connection first.
      arguments: of the target, after the connection.
    """

    def __init__(self, target: Any, *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=target, args=(theirs, *arguments), daemon=True
        )
        # Ctrl-C is the parent's business, also while the child still imports.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._process.start()  # which inherits that
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        self._connection.close()  # a child that waits for a request ends
        # After an error or a signal it may be at work, for minutes.
        self._process.join(0 if kind else 5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def ask(self, *request: Any) -> Any:
        """Send a request, if any, and wait for the answer.

        Raises:
          ConfigError: the child says that it cannot be done.
          NoPeer: likewise, of a peer.
          ChildError: it failed, or it is gone.
        """
        try:
            if request:
                self._connection.send(request)
            status, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise ChildError(
                f"the process ended with status {self._process.exitcode} "
                f"(out of memory?)"
            ) from None
        if status == "ok":
            return answer
        kinds = {"config": names.ConfigError, "no peer": NoPeer}
        raise kinds.get(status, ChildError)(answer)


def in_child(function: str, *arguments: Any) -> Any:
    """The result of ``package.module:function`` called in a fresh process."""
    with Child(_call, function, arguments) as child:
        return child.ask()


def machine() -> Machine:
    """The machine, as a fresh process sees it (devices stay free for others)."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return Machine(**in_child(f"{__name__}:_machine"), load=load)


def measure(
    case: Case, peers: Sequence[str], rounds: int, seconds: float
) -> list[Measurement]:
    """Time a case: this package first, then the peers.

    Args:
      case: what is trained.
      peers: keys of `PEERS`.
      rounds: blocks of each contender.
      seconds: length of a block, about.

    Returns:
      A `Measurement` for each contender. Once this package fails, the peers stop
      too: there is nothing left to compare them with.

    Raises:
      ConfigError: the case cannot be run here.
    """
    found = [Measurement(name) for name in (OURS, *peers)]
    children: dict[str, Child] = {}
    steps: dict[str, int] = {}
    every = case.dispatch
    with contextlib.ExitStack() as stack:
        for one in found:
            try:
                child = Child(_serve, one.contender, case, len(found) > 1)
                children[one.contender] = stack.enter_context(child)
                one.parameters, one.compile_seconds, step = child.ask()
                block = max(1, math.ceil(min(seconds / step, MOST_STEPS) / every))
                steps[one.contender] = block * every
                if one.parameters != found[0].parameters:
                    raise ChildError(
                        f"has {one.parameters:,} parameters, not those of {OURS}"
                    )
            except (NoPeer, ChildError) as error:
                one.reason = str(error)
                if one is found[0]:
                    break
        for _ in range(rounds):
            for one in found:
                if not found[0].reason:
                    _attempt(one, _block, children, steps)
            _attempt(found[0], _peak, children, case)
        for one in found:
            if one.seconds:
                _attempt(one, _read_memory, children)
    for other in found[1:]:
        if not other.seconds and not other.reason:
            other.reason = f"{OURS} could not be measured"
    return found


def _attempt(one: Measurement, task: Any, children: Any, *arguments: Any) -> None:
    """A request of a contender that is still there; failing becomes its reason."""
    if one.reason:
        return
    try:
        task(one, children[one.contender], *arguments)
    except ChildError as error:
        one.reason = str(error)


def _block(one: Measurement, child: Child, steps: dict[str, int]) -> None:
    seconds, one.loss = child.ask("run", steps[one.contender])
    if not math.isfinite(one.loss):
        raise ChildError(f"the loss is {one.loss}")
    one.seconds.append(seconds)


def _peak(one: Measurement, child: Child, case: Case) -> None:
    one.peak_rates.append(child.ask("peak", case.dtype, case.devices))


def _read_memory(one: Measurement, child: Child) -> None:
    one.memory = child.ask("memory")


def _answer(connection: Any, produce: Any) -> bool:
    """Send what a function returns, or how it failed; whether to go on."""
    status = "ok"
    try:
        answer = produce()
    except names.ConfigError as error:
        status, answer = "config", str(error)
    except NoPeer as error:
        status, answer = "no peer", str(error)
    except Exception as error:  # of any framework: it becomes a line of the table
        first_line, *_ = str(error).split("\n")
        status, answer = "failed", f"{type(error).__name__}: {first_line}"
    try:
        connection.send((status, answer))
    except OSError:  # nobody waits for it any more
        return False
    return status == "ok"


def _call(connection: Any, function: str, arguments: Sequence[Any]) -> None:
    """The body of a child that does one thing."""
    _prepare_child()
    _answer(connection, lambda: names.resolve("function", function, {})(*arguments))


def _serve(connection: Any, name: str, case: Case, shared: bool) -> None:
    """The body of a contender's process: first its start, then requests."""
    _prepare_child()
    if shared:  # several processes on one GPU: none may take it all
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    from experiments.benchmark.contender import peak_rate

    before = 0
    contender: Any = None

    def start() -> tuple[int, float, float]:
        nonlocal before, contender
        build = names.resolve("contender", CONTENDERS[name], {})
        before = _memory("VmRSS")
        contender = build(case)
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            contender.run(case.dispatch)
            times.append(time.perf_counter() - begin)
        return contender.parameters, times[0] - times[2], times[2] / case.dispatch

    def run(steps: int) -> tuple[float, float]:
        contender.run(case.dispatch)  # another process had the caches
        begin = time.perf_counter()
        loss = contender.run(steps)
        return (time.perf_counter() - begin) / steps, loss

    def memory() -> int:
        on_device = contender.device_memory()
        return _memory("VmHWM") - before if on_device is None else on_device

    requests = {"run": run, "peak": peak_rate, "memory": memory}
    going = _answer(connection, start)
    while going:
        try:
            request, *arguments = connection.recv()
        except (EOFError, OSError):
            return
        going = _answer(connection, functools.partial(requests[request], *arguments))


def _prepare_child() -> None:
    """What is compiled is compiled here, not read from a cache on disk.

    And it ends with its parent, also if that is killed while this one compiles.
    """
    threading.Thread(target=_follow_parent, daemon=True).start()

    import jax

    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    os.environ["TORCH_DYNAMO_AUTOMATIC_DYNAMIC_LOCAL_PGO"] = "0"  # or it complains
    jax.config.update("jax_enable_compilation_cache", False)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _memory(key: str) -> int:
    """Resident bytes of this process: now ('VmRSS') or at most ('VmHWM')."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _machine() -> dict[str, Any]:
    import jax

    first, *_ = devices = jax.devices()
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "devices": len(devices),
        "cores": len(backend.cores()),
    }
