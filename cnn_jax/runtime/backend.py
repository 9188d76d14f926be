"""What must be set before jax's backend starts.

jaxlib 0.10.2 hands parts of a CPU program to its library YNNPACK, and two of its
choices need a word:

- Reductions there give wrong numbers in some programs (jax issue 39103), so they
  are left out.
- A convolution there runs on a single core. On one core it is the fastest that
  there is; on several, XLA's own (Eigen's) use them all, and train steps take about
  a tenth less time on two (ResNet-56, VGG-11, LeNet-5 at batch 128). So convolutions
  are left out too where there are more.
"""

import os
from collections.abc import MutableMapping

import jaxlib

AFFECTED = ("0.10.2",)
FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# Holds what was added to XLA_FLAGS: processes that this one starts, on fewer cores,
# choose again, and leave alone what a user chose.
ADDED = "CNN_JAX_XLA_FLAGS"


def choose_library(
    environment: MutableMapping[str, str] | None = None,
    version: str = jaxlib.__version__,
) -> None:
    """Set the flag in ``XLA_FLAGS``, where it is needed and the user has not.

    Other versions are left alone: XLA ends a process that names a flag it does
    not know. Once the backend has started, this has no effect; a process that
    changes the cores it may use calls it again before that.

    Args:
      environment: of this process, unless another is given.
      version: of jaxlib.
    """
    environment = os.environ if environment is None else environment
    flags = environment.get("XLA_FLAGS", "").strip()
    added = environment.pop(ADDED, "")
    if added:
        flags = flags.replace(added, "").strip()
        environment["XLA_FLAGS"] = flags
    file = flags and not flags.startswith("-")  # XLA reads its flags there
    if version in AFFECTED and FLAG not in flags and not file:
        several = len(cores()) > 1
        added = f"{FLAG}=-reduce" + (",-individual_convolution" if several else "")
        environment[ADDED] = added
        environment["XLA_FLAGS"] = f"{flags} {added}".strip()


def cores() -> list[int]:
    """The cores this process may use; all of them where systems do not say."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
