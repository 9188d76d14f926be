"""One residual net on scikit-learn's digits: a first run.

He et al. (2015), section 4.2, at half width on 8x8 images.

    python -m experiments.train --config=configs/resnet_digits.py --workdir=runs/first

Hardware and time: 2 CPU cores, 8 s including compilation.
Expected: test error 2.47 +- 0.70 % (seeds 0 to 2).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.model = {
        "name": "cifar_resnet",
        "depth": 20,
        "block": "basic",
        "shortcut": "A",
        "widths": (8, 16, 32),
        "dtype": "float32",
    }
    config.loss = {"name": "softmax_cross_entropy"}
    config.dataset = {"name": "digits", "data_dir": ""}
    config.preprocess = {"name": "standardize", "mean": "pixel", "std": "none"}
    config.augment = {"name": "none"}
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "decay": "all",
    }
    config.schedule = {
        "name": "piecewise",
        "rates": (0.1, 0.01),
        "boundaries": (150,),
    }
    config.warmup = {"rate": 0.0, "until_train_error": 0.0}
    config.batch_size = 128
    config.eval_batch_size = 512
    config.steps = 200
    config.steps_per_execution = 10
    config.log_every = 10
    config.eval_every = 50
    config.checkpoint_every = 50
    config.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 0,
    }
    return config
