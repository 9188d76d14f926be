"""Degradation study on CIFAR-10: the paper's recipe with one quarter of its schedule.

He et al. (2015), section 4.2, with the paper's widths, batch size, batch norm,
augmentation and optimizer. The schedule differs: 16k steps (41 epochs) instead of 64k,
with the learning rate divided by 10 at the same fractions, one half and three quarters.
Depths 20, 32, 44 and 56, one seed.

    python -m experiments.prepare cifar10
    python -m experiments.degradation --config=configs/degradation_cifar10_short.py

Hardware and time: one H100, 14 minutes for these eight runs and two more seeds of depth
20, about four at a time.
Expected: clean training error (%) at depths 20, 32, 44 and 56: plain 9.2, 10.7, 15.7
and 31.5, residual 7.1, 5.0, 4.4 and 4.6, on images that had been re-encoded as JPEG
(not the original files). At depth 20 this is the mean of three seeds, whose range was
0.8 (plain) and 0.3 (residual).
"""

from ml_collections import ConfigDict

from configs import degradation_cifar10


def get_config() -> ConfigDict:
    config = degradation_cifar10.get_config()
    config.name = "degradation_cifar10_short"
    config.depths = (20, 32, 44, 56)
    config.seeds = (0,)
    config.overrides = {}  # the warm-up is for depth 110 and beyond
    config.run.steps = 16_000
    config.run.schedule.boundaries = (8_000, 12_000)
    config.run.eval_every = 2_000
    config.run.checkpoint_every = 500
    return config
