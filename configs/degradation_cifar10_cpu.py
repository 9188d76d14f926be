"""Degradation study on CIFAR-10, reduced to 20 minutes on two CPU cores.

The optimizer, augmentation and depths of He et al. (2015), section 4.2, with one
quarter of the paper's width, 5 epochs instead of 164 (learning rate divided by 10
after three, and again after four) and one seed. Errors are far above the paper's. The
result of interest is how training error changes with depth in plain and residual nets.

    python -m experiments.prepare cifar10
    python -m experiments.degradation --config=configs/degradation_cifar10_cpu.py

Hardware and time: two CPU cores, one run on each, 20 minutes, while other programs ran.
Expected: clean training error (%) at depths 8, 20, 32 and 56: plain 41.9, 44.6, 53.4
and 71.4, residual 41.1, 36.6, 37.4 and 39.8, on images that had been re-encoded as
JPEG (not the original files). This is one seed: on another machine or version of jax,
plain nets differ by a few percentage points (depth 20 gave 41.6 with other rounding).
"""

from ml_collections import ConfigDict

from configs import degradation_cifar10


def get_config() -> ConfigDict:
    config = degradation_cifar10.get_config()
    config.name = "degradation_cifar10_cpu"
    config.depths = (8, 20, 32, 56)
    config.seeds = (0,)
    config.overrides = {}
    config.run.model.widths = (4, 8, 16)
    config.run.steps = 1_955
    config.run.schedule.boundaries = (1_173, 1_564)
    config.run.steps_per_execution = 17
    config.run.eval_every = 0  # the clean training error costs as much as 100 steps
    config.run.checkpoint_every = 391
    config.run.parallel.bn_group_size = 0
    return config
