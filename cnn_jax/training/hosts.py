"""Hosts: the processes that train one run together, and their coordination.

Every host runs the same program on its own devices and its own rows of each batch.
Only the first host reads and writes the run directory. It broadcasts what it reads,
so that all hosts make the same decisions.
"""

import hashlib
import os
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnn_jax.names import ConfigError
from cnn_jax.training import rendezvous

T = TypeVar("T")

ONE, CLUSTER = "one", "cluster"
# Numbers of at most nine digits, which covers all valid hosts and ports.
FORM = re.compile(r"(\d{1,9})/(\d{1,9})@(\S+:(\d{1,9}))", re.ASCII)
MOST = 2**16  # hosts
PIECE = 2**26  # bytes per broadcast
SMALLEST = 2**12
# Seconds for which the first host waits after an error, while the others report it.
LINGER = 2


def parse(hosts: str) -> dict[str, Any]:
    """Translate ``parallel.hosts`` to arguments of ``jax.distributed.initialize``.

    Args:
      hosts: 'cluster', or 'INDEX/COUNT@ADDRESS:PORT' with the address of host 0.

    Returns:
      Keyword arguments; none for 'cluster', which JAX detects from the environment.

    Raises:
      ConfigError: the form is unknown, or the index is out of range.
    """
    if hosts == CLUSTER:
        return {}
    found = FORM.fullmatch(hosts)
    if found is None:
        raise ConfigError(
            f"parallel.hosts must be '{ONE}', '{CLUSTER}' (detected from SLURM, Open "
            "MPI, Kubernetes or a TPU pod) or INDEX/COUNT@ADDRESS:PORT, such as "
            f"0/2@node1:1234 for the first of two hosts, got {hosts!r}"
        )
    index, count = int(found[1]), int(found[2])
    if not 0 < int(found[4]) < 2**16:
        raise ConfigError(f"parallel.hosts {hosts!r}: the port must be in 1..65535")
    if count > MOST:
        raise ConfigError(
            f"parallel.hosts {hosts!r}: at most {MOST} hosts are supported"
        )
    if index >= count:
        raise ConfigError(
            f"parallel.hosts {hosts!r}: the index must be below the count"
        )
    return {
        "coordinator_address": found[3],
        "num_processes": count,
        "process_id": index,
        "cluster_detection_method": "deactivate",
    }


def join(hosts: str, timeout: int) -> None:
    """Connect to the other hosts of a run; call it before JAX's backend starts.

    Args:
      hosts: 'one' (does nothing), 'cluster' or 'INDEX/COUNT@ADDRESS:PORT'.
      timeout: seconds to wait for the other hosts. Also the seconds of silence after
        which a host counts as lost; this process then exits.

    Raises:
      ConfigError: the form is unknown, two processes have the same index, a host is
        missing, or the environment describes no cluster. If a host of a cluster is
        missing, the process prints one line and exits with status 2.
    """
    if hosts == ONE or jax.distributed.is_initialized():
        return
    arguments = parse(hosts)
    if arguments:
        rendezvous.meet(
            arguments["process_id"],
            arguments["num_processes"],
            arguments["coordinator_address"],
            timeout,
        )
    # Its SIGTERM handler would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    met = threading.Event()

    def give_up() -> None:
        # jax would end the process without naming the setting or the address.
        if not met.wait(timeout):
            print(
                f"error: parallel.hosts {hosts}: not all hosts connected within "
                f"{timeout} s (parallel.host_timeout); check that the address of the "
                "first host is reachable",
                file=sys.stderr,
                flush=True,
            )
            os._exit(2)

    threading.Thread(target=give_up, daemon=True).start()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=2 * timeout,
            heartbeat_timeout_seconds=timeout,
            shutdown_timeout_seconds=timeout,
        )
    except ValueError as error:
        raise ConfigError(
            f"parallel.hosts {hosts!r}: the environment describes no cluster "
            f"({error}); start with srun or mpirun, or use INDEX/COUNT@ADDRESS:PORT"
        ) from None
    finally:
        met.set()


def joined() -> bool:
    """Whether this process is one of several hosts."""
    return jax.distributed.is_initialized()


def leave(status: int) -> None:
    """Disconnect from the other hosts, if there are any.

    Args:
      status: exit status of the process. All hosts finish a run, or stop on a
        signal, together. An error may concern only this host; see `abandon`.
    """
    if joined() and (status == 0 or status > 128):
        jax.distributed.shutdown()
    else:
        abandon(status)


def abandon(status: int) -> None:
    """End this process without waiting for the other hosts, if there are any.

    The others then end too, since they have lost a host.
    """
    if not joined():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        time.sleep(LINGER)
    os._exit(status)


def index() -> int:
    """This host's number, from 0."""
    return jax.process_index() if joined() else 0


def count() -> int:
    """Number of hosts."""
    return jax.process_count() if joined() else 1


def is_first() -> bool:
    """Whether this is the host that reads and writes files, and reports."""
    return index() == 0


def from_first(make: Callable[[], T]) -> T:
    """Call ``make`` on the first host and broadcast its result to all hosts.

    Args:
      make: called on the first host only; its result must be picklable.

    Returns:
      The result of ``make``, on every host.

    Raises:
      Exception: the exception that ``make`` raised, on every host.
    """
    if count() == 1:
        return make()
    outcome: tuple[Any, Exception | None] = (None, None)
    if is_first():
        try:
            outcome = (make(), None)
        except Exception as error:
            outcome = (None, _portable(error))
    result, failure = pickle.loads(_broadcast(pickle.dumps(outcome)))
    if failure is not None:
        raise failure
    return result


def check_equal(parts: Mapping[str, bytes]) -> None:
    """Refuse to continue if the hosts differ in values that must be equal.

    Args:
      parts: the values to compare, by their name in the error message.

    Raises:
      ConfigError: on every host, naming the value and the hosts that differ.
    """
    if count() == 1:
        return
    digests = [hashlib.sha256(part).digest() for part in parts.values()]
    own = np.frombuffer(b"".join(digests), np.uint8).reshape(len(parts), -1)
    found = multihost_utils.process_allgather(own)
    for place, name in enumerate(parts):
        differing = (found[:, place] != found[0, place]).any(1).nonzero()[0]
        if len(differing):
            raise ConfigError(
                f"host(s) {', '.join(map(str, differing))} differ from host 0 in "
                f"{name}, which must be the same on all hosts of a run"
            )


def _portable(error: Exception) -> Exception:
    """The error, or a picklable substitute for it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _broadcast(payload: bytes) -> bytes:
    """Broadcast the first host's bytes to every host."""
    size = np.array([len(payload) // PIECE, len(payload) % PIECE], np.int32)
    whole, rest = multihost_utils.broadcast_one_to_all(size).tolist()
    received = []
    for number in range(whole + 1):
        length = PIECE if number < whole else rest
        # Round sizes up to powers of two: each new size is compiled.
        room = SMALLEST
        while room < length:
            room *= 2
        piece = np.zeros(room, np.uint8)
        if is_first():
            part = payload[number * PIECE : number * PIECE + length]
            piece[:length] = np.frombuffer(part, np.uint8)
        piece = multihost_utils.broadcast_one_to_all(piece)
        received.append(np.asarray(piece)[:length].tobytes())
    return b"".join(received)
