"""The name of a study's run, which is that of its directory: FAMILY-DEPTH-seedN."""

import re
from typing import Any

PATTERN = re.compile(r"(.+)-(\d+)-seed(\d+)", re.DOTALL)


def build(family: str, depth: int, seed: int) -> str:
    """The name of a run."""
    return f"{family}-{depth}-seed{seed}"


def parse(name: str) -> dict[str, Any] | None:
    """Family, depth and seed from the name of a run; None for other names."""
    found = PATTERN.fullmatch(name)
    if found is None:
        return None
    return {"family": found[1], "depth": int(found[2]), "seed": int(found[3])}
