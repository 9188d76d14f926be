"""Signals that ask a run to stop: recorded, and obeyed between two steps."""

import collections
import signal
import threading
from collections.abc import Collection
from types import FrameType, TracebackType
from typing import Any

from cnn_jax.training import hosts
from cnn_jax.training.parallel import Devices

# SIGHUP arrives when a terminal closes or a connection is lost; batch systems
# announce a time limit with SIGUSR1 or SIGUSR2.
ALWAYS = (signal.SIGTERM, signal.SIGINT)
SIGNALS = (*ALWAYS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(Exception):
    """The run was asked to stop and has saved a checkpoint.

    Attributes:
      exit_status: 128 + the signal's number, as shells report it.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_status = 128 + number


class StopRequest:
    """Context in which the first of ``SIGNALS`` only sets ``received``.

    A subsequent Ctrl-C interrupts at once (KeyboardInterrupt), without a checkpoint;
    other subsequent signals are ignored. SIGHUP stays ignored where it
    already is (nohup), and SIGUSR1 and SIGUSR2 keep an existing handler.
    A nested request passes its signal to the outer one, so that a signal to one run
    of a study ends the study. Outside the main thread, where Python allows no
    handlers, it does nothing.

    Args:
      taken: signals whose existing handlers it replaces nevertheless.
    """

    def __init__(self, taken: Collection[int] = ()) -> None:
        self.received = 0
        self._taken = taken
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number in self._taken or _is_free(number):
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, StopRequest):
                outer.received = outer.received or self.received
        self._before.clear()

    def check(self) -> None:
        """Raise `Interrupted` if a signal has arrived."""
        if self.received:
            raise Interrupted(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number


def _is_free(number: int) -> bool:
    """Whether a `StopRequest` may handle a signal."""
    if number in ALWAYS:
        return True
    handler = signal.getsignal(number)
    ours = isinstance(getattr(handler, "__self__", None), StopRequest)
    return ours or handler is signal.SIG_DFL


class SharedStop:
    """A `StopRequest` that all hosts of a run obey at the same step.

    A signal may reach a single host. The hosts exchange their signals along with the
    steps and read the result a few calls later, when it is available without waiting.

    Args:
      stop: the request of this host.
      devices: the devices of the run.
    """

    BEHIND = 2  # calls between sending and reading

    def __init__(self, stop: StopRequest, devices: Devices):
        self._stop, self._devices = stop, devices
        self._sent: collections.deque[Any] = collections.deque()

    def received(self) -> int:
        """The signal to obey now, or 0; all hosts must call it at the same steps."""
        if hosts.count() == 1:
            return self._stop.received
        self._sent.append(self._devices.highest(self._stop.received))
        if len(self._sent) <= self.BEHIND:
            return 0
        return int(self._sent.popleft())

    def check(self) -> None:
        """Raise `Interrupted` if there is a signal to obey now."""
        number = self.received()
        if number:
            raise Interrupted(number)
