"""ResNet-50 on ImageNet.

He, Zhang, Ren and Sun (2015), section 3.4: bottlenecks, projection shortcuts
(option B), batch size 256 (as groups of 32 for batch norm, one for each of eight
GPUs), momentum 0.9, weight decay 1e-4, learning rate 0.1 divided by 10 where the error
plateaus, 600,000 steps, random shorter side in [256, 480], 224x224 crop, flip, colour
shift, per-pixel mean, ten crops at test time. The stride is in the first 1x1 layer, as
in the paper; ``--config.model.bottleneck_stride=3x3`` gives torchvision's net.

    python -m experiments.prepare imagenet2012 --data_dir=DATA --manual_dir=TARS
    python -m experiments.train --config=configs/resnet50_imagenet.py \\
        --workdir=runs/resnet50_imagenet --config.dataset.data_dir=DATA

Hardware and time: GPUs; not measured.
Expected top-1 error (%), ten crops, table 3 of the paper: 22.85.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.model = {
        "name": "resnet50",
        "shortcut": "B",
        "bottleneck_stride": "1x1",
        "preactivation": False,
        "zero_scale": False,
        "dtype": "float32",
    }
    config.loss = {"name": "softmax_cross_entropy"}
    config.dataset = {
        "name": "imagenet2012",
        "data_dir": "",
        "train_split": "train",
        "test_split": "validation",
        "validation_size": 0,
        "stream": {
            "train": {"name": "scale", "size": 224, "shorter": (256, 480)},
            "test": {"name": "ten_crop", "size": 224, "shorter": 256},
            "workers": 8,
            "clean_images": 50_000,
            "statistics_images": 100_000,
            "damaged": "refuse",
        },
    }
    config.preprocess = {"name": "standardize", "mean": "pixel", "std": "none"}
    config.augment = {"name": "pca_colour", "deviation": 0.1}
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "decay": "all",
    }
    config.schedule = {
        "name": "piecewise",
        "rates": (0.1, 0.01, 0.001, 0.0001),
        "boundaries": (150_000, 300_000, 450_000),
    }
    config.warmup = {"rate": 0.0, "until_train_error": 0.0}
    config.batch_size = 256
    config.eval_batch_size = 256
    config.steps = 600_000
    config.steps_per_execution = 1
    config.log_every = 500
    config.eval_every = 5_000
    config.checkpoint_every = 5_000
    config.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 32,
    }
    return config
