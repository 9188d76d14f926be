"""What `experiments.why_resnets_work` measures: from trained nets to table rows.

Each function takes the nets of the seeds of one shape, and settings by keyword:
they are the schema of the config's sections. Rows begin with the net's family,
depth, seed and step; errors are fractions.
"""

from experiments.measures.convolutions import measure_one_by_one
from experiments.measures.ensembles import (
    measure_lesions,
    measure_paths,
    measure_stochastic_depth,
)
from experiments.measures.landscapes import measure_landscape
from experiments.measures.signals import (
    measure_gradients,
    measure_grid,
    measure_linearity,
    measure_responses,
    measure_shattered,
)
from experiments.measures.training import measure_insertion

__all__ = [
    "measure_gradients",
    "measure_grid",
    "measure_insertion",
    "measure_landscape",
    "measure_lesions",
    "measure_linearity",
    "measure_one_by_one",
    "measure_paths",
    "measure_responses",
    "measure_shattered",
    "measure_stochastic_depth",
]
