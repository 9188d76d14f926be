"""A rendezvous of the hosts before JAX connects them: none missing, none twice.

If two processes have the same index, JAX's coordinator ends both with SIGABRT. Here
the first host listens at the address until all others have connected, answers them,
and then frees the port for the coordinator.
"""

import contextlib
import socket
import time

from cnn_jax.names import ConfigError

MET = b"met"
PAUSE = 0.1  # seconds between two attempts to reach the first host


def meet(index: int, count: int, address: str, timeout: int | float) -> None:
    """Wait until hosts 0 to ``count - 1`` have all connected.

    Args:
      index: index of this host.
      count: number of hosts.
      address: address of host 0, 'HOST:PORT'.
      timeout: seconds to wait.

    Raises:
      ConfigError: two processes have the same index, the hosts disagree on their
        number, the port is in use, or a host is missing after the timeout.
    """
    name, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout
    if index == 0:
        _receive(count, int(port), deadline, timeout)
    else:
        _call(index, count, name.strip("[]"), int(port), deadline, timeout)


def _receive(count: int, port: int, deadline: float, timeout: int | float) -> None:
    """Host 0: accept all other hosts, and send them the outcome."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise ConfigError(
            f"parallel.hosts: cannot open port {port} ({error.strerror}); check that "
            "only one process has index 0"
        ) from None
    met: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as opened:
        trouble = ""
        with server:
            while not trouble and not _all_there(met, count):
                server.settimeout(max(deadline - time.monotonic(), 0.001))
                try:
                    caller = opened.enter_context(server.accept()[0])
                except TimeoutError:
                    missing = sorted({*range(1, count)} - {*met})
                    trouble = _too_few(timeout, f"missing: {missing[:8]}")
                    break
                trouble = _admit(caller, count, met)
        for caller in met.values():
            with contextlib.suppress(OSError):
                caller.sendall(trouble.encode() or MET)
    if trouble:
        raise ConfigError(trouble)


def _admit(caller: socket.socket, count: int, met: dict[int, socket.socket]) -> str:
    """Register a host that connects; returns an error message, or ''."""
    caller.settimeout(5)
    try:
        index, its_count = map(int, caller.recv(64).split(b"/"))
    except (OSError, ValueError):  # a port scanner, or a host that died
        return ""
    trouble = ""
    if its_count != count:
        trouble = (
            f"parallel.hosts: host 0 expects {count} hosts, but host {index} expects "
            f"{its_count}"
        )
    elif index in met and not _is_gone(met[index]):
        trouble = f"parallel.hosts: two processes have the index {index}"
    if trouble:
        with contextlib.suppress(OSError):
            caller.sendall(trouble.encode())
        return trouble
    met[index] = caller
    return ""


def _all_there(met: dict[int, socket.socket], count: int) -> bool:
    """Whether all other hosts are connected; drops those that have ended."""
    if len(met) == count - 1:
        for index in [index for index, caller in met.items() if _is_gone(caller)]:
            del met[index]
    return len(met) == count - 1


def _is_gone(caller: socket.socket) -> bool:
    """Whether the process at the other end has ended."""
    caller.setblocking(False)
    try:
        return caller.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        caller.settimeout(5)


def _call(
    index: int, count: int, name: str, port: int, deadline: float, timeout: int | float
) -> None:
    """Any other host: report to host 0, and wait for its answer."""
    why = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((name, port), left) as line:
                line.sendall(b"%d/%d" % (index, count))
                # A little longer than host 0 waits: it knows who is missing.
                line.settimeout(left + 1)
                answer = line.recv(1024)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
        else:
            if answer == MET:
                return
            if answer:
                raise ConfigError(answer.decode(errors="replace"))
        time.sleep(PAUSE)
    raise ConfigError(_too_few(timeout, f"{name}:{port}: {why}"))


def _too_few(timeout: int | float, detail: str) -> str:
    return (
        f"parallel.hosts: not all hosts connected within {timeout} s "
        f"(parallel.host_timeout; {detail}); check that the address of the first host "
        "is reachable"
    )
