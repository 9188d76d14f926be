"""Degradation study on CIFAR-10, cut down to what two CPU cores do in 20 minutes.

The optimizer, augmentation and depths of He et al. (2015), section 4.2, on nets
of a quarter of the paper's width and a schedule of 5 epochs instead of 164 (the
rate divided by 10 after three, and again after four), one seed. Errors are far
above the paper's: what to look at is how training error goes with depth, plain
and residual.

    python -m experiments.prepare cifar10
    python -m experiments.degradation --config=configs/degradation_cifar10_cpu.py

Hardware and time: two CPU cores, a run on each; sized for 20 minutes from timed
steps (0.09 s at depth 20 and 0.24 s at depth 56 on one core).
Measured so far, on images that had been encoded anew as JPEG (not the original
files; their checksum stands in each run's config.json), clean training error and
test error (%): depth 8 plain 42.35 and 42.99, residual 41.90 and 42.28; depth 20
plain 41.59 and 41.43, residual 36.77 and 37.00. Depths 32 and 56 have not been run
to their end.
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
    config.run.steps_per_dispatch = 17
    config.run.eval_every = 0  # the clean training error takes as long as 100 steps
    config.run.checkpoint_every = 391
    config.run.parallel.bn_group_size = 0
    return config
