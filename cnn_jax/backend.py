"""What must be set before jax's backend starts.

jaxlib 0.10.2 miscompiles some programs on CPU: fusions of reductions through its
YNN library give wrong numbers (jax issue 39103). Leaving reductions out of them
avoids that and keeps the library's fast convolutions.
"""

import os
from collections.abc import MutableMapping

import jaxlib

AFFECTED = ("0.10.2",)
FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def avoid_miscompilation(
    environment: MutableMapping[str, str] | None = None,
    version: str = jaxlib.__version__,
) -> None:
    """Set the flag in ``XLA_FLAGS``, where it is needed and the user has not.

    Other versions are left alone: XLA ends a process that names a flag it does
    not know.

    Args:
      environment: of this process, unless another is given.
      version: of jaxlib.
    """
    environment = os.environ if environment is None else environment
    flags = environment.get("XLA_FLAGS", "")
    if version in AFFECTED and FLAG not in flags:
        environment["XLA_FLAGS"] = f"{flags} {FLAG}=-reduce".strip()
