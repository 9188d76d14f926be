"""The type of the items that sources pass to training, batch by batch.

This module imports nothing of the package, so that sources and workers can share it.
"""

from typing import Any, Literal

# A tree of NumPy arrays whose first axis counts examples.
Item = dict[str, Any]
Split = Literal["train", "test"]
