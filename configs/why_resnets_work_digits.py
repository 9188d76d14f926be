"""Why residual networks work: analyses of the degradation study on digits.

    python -m experiments.why_resnets_work

Trains the study of `degradation_digits.py` (three seeds of plain and residual nets
of 8 to 56 layers), then analyses the trained nets. Each section below is an analysis.
"""

from ml_collections import ConfigDict

from configs import degradation_digits


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "why_resnets_work_digits"
    config.study = degradation_digits.get_config()

    # The identity is easy to learn: insert one or six blocks of two layers into a
    # trained plain net, then train further at its last and at its first rate.
    config.insertion = {
        "family": "plain",
        "depth": 20,
        "site": "stage2_block2",
        "blocks": (1, 6),
        "rates": (0.01, 0.1),
        "steps": (0, 1, 2, 5, 10, 20, 40),
    }
    # Norm of the loss gradient by layer: before and after training and, for some
    # depths (whose training is repeated for this), in between.
    config.gradients = {
        "batches": 4,
        "along_training": (20, 56),
        "snapshots": (0, 1, 2, 5, 20, 70, 140),
    }
    # Balduzzi et al. (2017): gradients at an image and at a slightly moved image; and
    # figures 1 and 2, nets of one input with 200 units per layer, 20 of each kind.
    config.shattered = {"images": 64, "distances": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)}
    config.grid = {
        "depths": (2, 10, 24, 50),
        "width": 200,
        "points": 256,
        "beta": 0.1,
        "seeds": 20,
        "lags": 16,
    }
    # He et al. (2015), figure 7; 0 images means the whole training set.
    config.responses = {"images": 0}
    # Veit et al. (2016), figures 3 to 6.
    config.lesions = {
        "images": 0,
        "removed": (1, 2, 4, 8, 12, 16, 20),
        "swaps": (1, 2, 4, 8, 16, 32),
        "draws": 5,
    }
    config.paths = {"depths": (56,), "images": 32, "draws": 10}
    # Norm of (block output - input) over norm of the input.
    config.linearity = {"images": 0}
    # Huang et al. (2016): the same runs with stochastic depth; lesions of both nets.
    config.stochastic_depth = {
        "depth": 56,
        "death_rate": 0.5,
        "removed": (1, 2, 4, 8, 12),
        "draws": 5,
    }
    # Li et al. (2018), figure 1, on a coarser grid (theirs has 51 points a side).
    config.landscape = {
        "depths": (20, 56),
        "points": 21,
        "extent": 1.0,
        "images": 256,  # the first of the training set; 0 for all
        "seed": 0,
    }
    # Lin et al. (2013): timed 1x1 convolutions, and three seeds of the exclusive or.
    config.one_by_one = {
        "size": 28,
        "channels": 192,
        "shrink": 16,
        "width": 32,
        "batch": 16,
        "seeds": 3,
    }
    return config
