"""Figures of the analyses of `cnn_jax.analysis`, from their rows; nothing trains.

One function an analysis, which takes its rows (mappings with 'family', 'depth' and
'seed'), the directory of the figures and a title.
"""

from cnn_jax.plots_analysis.ensembles import lesions, paths, stochastic_depth
from cnn_jax.plots_analysis.landscapes import landscape
from cnn_jax.plots_analysis.signals import (
    gradients,
    grid,
    linearity,
    responses,
    shattered,
)
from cnn_jax.plots_analysis.training import insertion

__all__ = [
    "gradients",
    "grid",
    "insertion",
    "landscape",
    "lesions",
    "linearity",
    "paths",
    "responses",
    "shattered",
    "stochastic_depth",
]
