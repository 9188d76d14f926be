"""ResNet-50 (v1.5) on ImageNet in 90 epochs: the recipe of most later papers.

Goyal et al. (2017), "Accurate, large minibatch SGD: training ImageNet in 1 hour",
section 5.1: the stride in the 3x3 layer, the last batch-norm scale of each branch
initialised to 0, Nesterov momentum 0.9, weight decay 1e-4 except for batch norm, batch
norm over 32 images, crops of random area and aspect ratio, one centre crop at test
time. The learning rate is 0.1 per 256 images, with 5 epochs of warm-up, divided by 10
after 30, 60 and 80 epochs. Unlike in the paper, the last layer has fan-in
initialisation (the paper: N(0, 0.01^2)), biases do not decay, and the mean and
standard deviation are those of the dataset.

    python -m experiments.prepare imagenet2012 --data_dir=DATA --manual_dir=TARS
    python -m experiments.train --config=configs/resnet50_imagenet_90epochs.py \\
        --workdir=runs/resnet50_90epochs --config.dataset.data_dir=DATA

An epoch is 5,004.6 steps of 256 images. Larger batches need fewer steps: a batch of
8,192 takes 14,076 steps. The rates scale automatically; set the steps as follows:

    --config.batch_size=8192 --config.steps=14076 \\
        --config.schedule.boundaries='(4692,9384,12512)' \\
        --config.schedule.warmup_steps=782

Hardware and time: GPUs; not measured.
Expected top-1 accuracy (%), one crop, table 1 of the paper: 76.3 (76.40 +- 0.12 with
batches of 256, 76.26 +- 0.09 with 8,192).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.model = {
        "name": "resnet50",
        "shortcut": "B",
        "bottleneck_stride": "3x3",
        "preactivation": False,
        "zero_scale": True,
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
            "train": {"name": "inception", "size": 224},
            "test": {"name": "center", "size": 224, "shorter": 256},
            "workers": 8,
            "clean_images": 50_000,
            "statistics_images": 100_000,
            "damaged": "refuse",
        },
    }
    config.preprocess = {"name": "standardize", "mean": "channel", "std": "channel"}
    config.augment = {"name": "none"}
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "decay": "kernels",
    }
    config.schedule = {
        "name": "piecewise",
        "rates": (0.1, 0.01, 0.001, 0.0001),
        "boundaries": (150_137, 300_274, 400_365),
        "warmup_steps": 25_023,
        "per_images": 256,
    }
    config.warmup = {"rate": 0.0, "until_train_error": 0.0}
    config.batch_size = 256
    config.eval_batch_size = 256
    config.steps = 450_411
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
