"""Why residual networks work, on the nets of the degradation study on digits.

    python -m experiments.why_resnets_work

Trains the study of `degradation_digits.py` (three seeds of plain and residual nets
of 8 to 56 layers), then looks at what came out. Each section below is an analysis.
"""

from ml_collections import ConfigDict

from configs import degradation_digits


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "why_resnets_work_digits"
    config.study = degradation_digits.get_config()

    # Norm of the loss gradient by layer: before training and after it, and for
    # some depths (whose training is repeated for this) in between.
    config.gradients = {
        "batches": 4,
        "along_training": (20, 56),
        "snapshots": (0, 1, 2, 5, 10, 20, 40, 70, 105, 140),
    }
    # He et al. (2015), figure 7.
    config.responses = {"images": 0}  # of the training set; 0 for all
    # Li et al. (2018), figure 1, on a coarser grid (theirs has 51 points a side).
    config.landscape = {
        "depths": (20, 56),
        "points": 21,
        "extent": 1.0,
        "images": 256,  # of the training set, the first; 0 for all
        "seed": 0,
    }
    return config
