"""Degradation study on MNIST: the paper's nets at half width.

He et al. (2015), section 4.2, with the paper's optimizer; pad-2 crops, no flips
(mirrored digits are not digits); 10 epochs.

    python -m experiments.prepare mnist
    python -m experiments.degradation --config=configs/degradation_mnist.py

Hardware and time: one GPU; not measured.
Expected: not measured yet.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "degradation_mnist"
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
        "dtype": "float32",
    }
    run.loss = {"name": "softmax_cross_entropy"}
    run.dataset = {"name": "mnist", "data_dir": "", "validation_size": 0}
    run.preprocess = {"name": "standardize", "mean": "pixel", "std": "none"}
    run.augment = {"name": "crop_flip", "pad": 2, "flip": False}
    run.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "decay": "all",
    }
    run.schedule = {
        "name": "piecewise",
        "rates": (0.1, 0.01, 0.001),
        "boundaries": (2_350, 3_520),
    }
    run.warmup = {"rate": 0.0, "until_train_error": 0.0}
    run.batch_size = 128
    run.eval_batch_size = 1000
    run.steps = 4_690
    run.steps_per_execution = 10
    run.log_every = 67
    run.eval_every = 469
    run.checkpoint_every = 938
    run.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 0,
    }
    return config
