"""Figures of finished runs; the only part of the package that needs matplotlib."""

from cnn_jax.plots.curves import seeds_of as seeds_of
from cnn_jax.plots.degradation import curve as curve
from cnn_jax.plots.degradation import depth_vs_error as depth_vs_error
from cnn_jax.plots.degradation import training_curves as training_curves
from cnn_jax.plots.style import save as save
from cnn_jax.plots.style import style_of as style_of
