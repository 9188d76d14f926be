"""Degradation study on scikit-learn's digits, small enough for a laptop.

He et al. (2015), section 4.2, in miniature: the paper's nets at half width on 8x8
images, the paper's optimizer, no augmentation (mirrored digits are not digits), and a
schedule of 12 epochs.

    python -m experiments.degradation

Hardware and time: 2 CPU cores, 75 s including compilation.
Expected clean training error (%), three seeds, depths 8, 20, 32, 56: plain 0.00,
0.29, 13.29, 70.58; residual 0.00, 0.00, 0.00, 0.18.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "degradation_digits"
    config.families = {
        "plain": {"model": {"shortcut": "none"}},
        "residual": {"model": {"shortcut": "A"}},
    }
    config.depths = (8, 20, 32, 56)
    config.seeds = (0, 1, 2)
    config.overrides = {}

    run = config.run = ConfigDict()
    run.seed = 0  # replaced by each of config.seeds
    run.model = {
        "name": "cifar_resnet",
        "depth": 20,  # replaced by each of config.depths
        "block": "basic",
        "shortcut": "A",  # replaced by each family
        "widths": (8, 16, 32),
    }
    run.loss = {"name": "softmax_cross_entropy"}
    run.dataset = {"name": "digits", "data_dir": ""}
    run.preprocess = {"name": "standardize", "mean": "pixel", "std": "none"}
    run.augment = {"name": "none"}
    run.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "decay": "all",
    }
    run.schedule = {"name": "piecewise", "rates": (0.1, 0.01), "boundaries": (105,)}
    run.warmup = {"rate": 0.0, "until_train_error": 0.0}
    run.batch_size = 128
    run.eval_batch_size = 512
    run.steps = 140
    run.steps_per_execution = 12
    run.log_every = 12
    run.eval_every = 24
    run.checkpoint_every = 70
    run.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 0,
    }
    return config
