"""The sections of the report of `experiments.why_resnets_work`, from table rows.

What a section claims is decided from the rows, never written down beforehand: the
same text over other nets may answer 'no'.
"""

import pathlib
from collections.abc import Callable

from cnn_jax.report import Section
from experiments.sections import (
    convolutions,
    ensembles,
    landscapes,
    signals,
    training,
)
from experiments.sections.rows import Rows, Settings

# In the order of the report. Each takes the rows of its analysis, the directory of
# the figures and the analysis's settings.
SECTIONS: dict[str, Callable[[Rows, pathlib.Path, Settings], Section]] = {
    "degradation": training.degradation,
    "insertion": training.insertion,
    "gradients": signals.gradients,
    "shattered": signals.shattered,
    "grid": signals.grid,
    "responses": signals.responses,
    "linearity": signals.linearity,
    "lesions": ensembles.lesions,
    "paths": ensembles.paths,
    "stochastic_depth": ensembles.stochastic_depth,
    "landscape": landscapes.landscape,
    "one_by_one": convolutions.one_by_one,
}
