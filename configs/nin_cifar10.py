"""Network in Network on CIFAR-10.

Lin, Chen and Yan (2013), section 4: three mlpconv layers, dropout after the
first two, global average pooling; translation and flips. The paper gives neither
learning rates nor initialisation. It preprocesses with contrast normalisation and
whitening. Here weights have He initialisation, channels are standardised, and the rate
is divided by 10 twice.

    python -m experiments.prepare cifar10
    python -m experiments.train --config=configs/nin_cifar10.py \\
        --workdir=runs/nin_cifar10

Hardware and time: one GPU; not measured.
Expected test error (%), table 1 of the paper, with augmentation and the paper's
preprocessing: 8.81.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.model = {
        "name": "nin_cifar",
        "width": 1.0,
        "batch_norm": False,
        "dropout": 0.5,
        "dtype": "float32",
    }
    config.loss = {"name": "softmax_cross_entropy"}
    config.dataset = {"name": "cifar10", "data_dir": "", "validation_size": 0}
    config.preprocess = {"name": "standardize", "mean": "channel", "std": "channel"}
    config.augment = {"name": "crop_flip", "pad": 4, "flip": True}
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "decay": "kernels",
    }
    config.schedule = {
        "name": "piecewise",
        "rates": (0.02, 0.002, 0.0002),
        "boundaries": (62_400, 78_000),  # after 160 and 200 epochs
    }
    config.warmup = {"rate": 0.0, "until_train_error": 0.0}
    config.batch_size = 128
    config.eval_batch_size = 1000
    config.steps = 89_700  # 230 epochs
    config.steps_per_execution = 30
    config.log_every = 390
    config.eval_every = 3_900
    config.checkpoint_every = 3_900
    config.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 0,
    }
    return config
