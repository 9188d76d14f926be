"""Degradation study on CIFAR-10, shortened to what one GPU does in 20 minutes.

The nets, optimizer and augmentation of He et al. (2015), section 4.2, on a
schedule of 8k steps instead of 64k (rates divided at the same fractions),
depths 20, 32, 44 and 56, one seed: the errors are higher than the paper's, and
the order of the curves is what to look at.

    python -m experiments.prepare cifar10
    python -m experiments.degradation --config=configs/degradation_cifar10_short.py

Hardware and time: one GPU; the schedule is sized for 20 minutes there (64k
steps in all, 8 runs of 8k) and has not been timed yet.
Expected: not measured yet.
"""

from ml_collections import ConfigDict

from configs import degradation_cifar10


def get_config() -> ConfigDict:
    config = degradation_cifar10.get_config()
    config.name = "degradation_cifar10_short"
    config.depths = (20, 32, 44, 56)
    config.seeds = (0,)
    config.overrides = {}
    config.run.steps = 8_000
    config.run.schedule.boundaries = (4_000, 6_000)
    config.run.eval_every = 1_955
    config.run.checkpoint_every = 1_000
    return config
