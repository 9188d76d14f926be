"""ResNet-164 with pre-activation on CIFAR-10.

He, Zhang, Ren and Sun (2016), "Identity Mappings in Deep Residual Networks", section 4
and appendix: bottlenecks, 64k steps of 128 images, learning rate 0.01 for the first 400
steps, then 0.1, divided by 10 at 32k and 48k, momentum 0.9, weight decay 1e-4, pad-4
crops and flips, batch norm over 64 images (128 on two GPUs). The paper refers to that
of 2015 for the preprocessing, a per-pixel mean. Its text does not name the shortcuts
between stages; projections (option B) give its 1.7 million parameters.

    python -m experiments.prepare cifar10
    python -m experiments.train --config=configs/preresnet164_cifar10.py \\
        --workdir=runs/preresnet164

For the paper's 1,001 layers, add ``--config.model.depth=1001``. For its 110 layers of
basic blocks, add ``--config.model.depth=110 --config.model.block=basic
--config.model.shortcut=A``.

Hardware and time: a GPU; not measured.
Expected test error (%), table 4 and table 2, medians of five runs: 5.46 at 164 layers,
4.92 at 1,001, 6.37 at 110.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.model = {
        "name": "cifar_resnet",
        "depth": 164,
        "block": "bottleneck",
        "shortcut": "B",
        "preactivation": True,
        "widths": (16, 32, 64),
        "dtype": "float32",
    }
    config.loss = {"name": "softmax_cross_entropy"}
    config.dataset = {"name": "cifar10", "data_dir": "", "validation_size": 0}
    config.preprocess = {"name": "standardize", "mean": "pixel", "std": "none"}
    config.augment = {"name": "crop_flip", "pad": 4, "flip": True}
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "decay": "all",
    }
    config.schedule = {
        "name": "piecewise",
        "rates": (0.01, 0.1, 0.01, 0.001),
        "boundaries": (400, 32_000, 48_000),
    }
    config.warmup = {"rate": 0.0, "until_train_error": 0.0}
    config.batch_size = 128
    config.eval_batch_size = 1000
    config.steps = 64_000
    config.steps_per_execution = 50
    config.log_every = 391  # about an epoch
    config.eval_every = 1955
    config.checkpoint_every = 4000
    config.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 64,
    }
    return config
