"""The measure of 1x1 convolutions."""

import itertools
from collections.abc import Sequence

from cnn_jax.analysis.trained import Net
from experiments import one_by_one
from experiments.measures.rows import Row


def measure_one_by_one(
    nets: Sequence[Net],
    size: int,
    channels: int,
    shrink: int,
    width: int,
    batch: int,
    seeds: int,
) -> list[Row]:
    """What 1x1 convolutions save and add, see `experiments.one_by_one`.

    Args:
      nets: none.
      size: height and width of the map.
      channels: of the input.
      shrink: maps of the 1x1 convolution.
      width: maps of the output.
      batch: images a timed call.
      seeds: nets that learn the exclusive or, of each kind.

    Returns:
      Rows of a 'kind': 'shrink' for each kernel, with 'direct_parameters',
      'parameters', 'direct_macs', 'macs' and 'time_ratio'; and 'exclusive_or' for
      each seed, with 'layers' and 'error'. What a kind has not is 0 or ''.
    """
    del nets
    blank = {
        **{"family": "", "depth": 0, "seed": 0, "step": 0, "kind": "", "kernel": 0},
        **dict.fromkeys(("direct_parameters", "parameters", "direct_macs", "macs"), 0),
        **{"time_ratio": 0.0, "layers": "", "error": 0.0},
    }
    rows = []
    for kernel in (5, 3):
        found = one_by_one.measure_saving(kernel, size, channels, shrink, width, batch)
        rows.append(
            {
                **blank,
                "kind": "shrink",
                "kernel": kernel,
                "direct_parameters": found.direct.parameters,
                "parameters": found.shrunk.parameters,
                "direct_macs": found.direct.macs,
                "macs": found.shrunk.macs,
                "time_ratio": found.time_ratio,
            }
        )
    for added, seed in itertools.product((False, True), range(seeds)):
        layers = "with 1x1 and ReLU" if added else "linear"
        learned = {"kind": "exclusive_or", "layers": layers, "seed": seed}
        error = one_by_one.learn_exclusive_or(added, seed)
        rows.append({**blank, **learned, "error": error})
    return rows
