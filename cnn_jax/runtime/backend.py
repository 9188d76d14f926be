"""Settings of XLA that must be made before jax's backend starts.

On CPU, jaxlib 0.10.2 delegates parts of a program to its library YNNPACK. Two of
these choices need correction:

- YNNPACK's reductions give wrong numbers in some programs, for example a sum of squares
  (see `cnn_jax.runtime.selfcheck`), so they are excluded.
- YNNPACK's convolutions run on a single core. There they are the fastest available.
  XLA's own (Eigen's) use all cores, and on two cores a train step takes about a tenth
  less time with them (ResNet-56, VGG-11, LeNet-5 at batch 128). With more than one
  core, convolutions are therefore excluded too.
"""

import math
import os
import pathlib
from collections.abc import MutableMapping

import jaxlib

AFFECTED = ("0.10.2",)
FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# Records the flags added to XLA_FLAGS, so that child processes with fewer cores can
# replace them without changing the user's own flags.
ADDED = "CNN_JAX_XLA_FLAGS"
CGROUP = "/sys/fs/cgroup"


def choose_library(
    environment: MutableMapping[str, str] | None = None,
    version: str = jaxlib.__version__,
) -> None:
    """Set the flag in ``XLA_FLAGS`` if it is needed and the user has not set it.

    Does nothing for other versions, since XLA ends a process on an unknown flag.
    Must be called before the backend starts, and again after a change of the cores
    that this process may use.

    Args:
      environment: the environment to change; by default that of this process.
      version: of jaxlib.
    """
    environment = os.environ if environment is None else environment
    flags = environment.get("XLA_FLAGS", "").strip()
    added = environment.pop(ADDED, "")
    if added:
        flags = flags.replace(added, "").strip()
        environment["XLA_FLAGS"] = flags
    file = flags and not flags.startswith("-")  # XLA_FLAGS names a file
    if version in AFFECTED and FLAG not in flags and not file:
        several = len(cores()) > 1
        added = f"{FLAG}=-reduce" + (",-individual_convolution" if several else "")
        environment[ADDED] = added
        environment["XLA_FLAGS"] = f"{flags} {added}".strip()


def share_memory() -> None:
    """Reserve no GPU memory in advance, because other processes use the same GPU.

    Must be called before the backend starts. A user's own setting has precedence.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def cores() -> list[int]:
    """The cores this process may use; all cores if the system does not report it.

    XLA has a thread for each, even in a container that may not use all their time.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def capacity() -> int:
    """How many cores this process can keep busy: fewer than `cores` under a quota."""
    quota = _quota()
    return len(cores()) if quota is None else max(1, min(len(cores()), quota))


def _quota() -> int | None:
    """The cores whose time a container may use, rounded up; None without a limit."""
    group = pathlib.Path(CGROUP)
    # Quota and period, by version 2 of cgroups and by version 1.
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            texts = [(group / name).read_text() for name in names]
            quota, period = map(int, " ".join(texts).split())
        except (OSError, ValueError):  # no such files; 'max' is no limit
            continue
        if quota > 0 and period > 0:  # -1 is no limit
            return math.ceil(quota / period)
    return None
