"""What passes from data to training, batch by batch.

A leaf of the package's imports: sources, their batches and their workers share it.
"""

from typing import Any, Literal

# A tree of NumPy arrays whose first axis is that of the examples.
Item = dict[str, Any]
Split = Literal["train", "test"]
