"""Degradation study on CIFAR-10: the paper's recipe with one quarter of its schedule.

He et al. (2015), section 4.2, with the paper's widths, batch size, batch norm,
augmentation and optimizer. Only the schedule differs: 16k steps (41 epochs) instead of
64k, with the learning rate divided by 10 at the same fractions, one half and three
quarters. Depths 20, 32, 44 and 56, one seed. Errors are higher than the paper's; the
result of interest is the order of the curves.

    python -m experiments.prepare cifar10
    python -m experiments.degradation --config=configs/degradation_cifar10_short.py

Hardware and time: not measured yet; 128k steps in all.
Expected: not measured yet.
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
