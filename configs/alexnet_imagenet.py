"""AlexNet on ImageNet.

Krizhevsky, Sutskever and Hinton (2012), sections 3 to 5: two towers, response
normalisation, weights from N(0, 0.01^2), dropout, patches of the central
256x256 square and their mirror images, colour shift, batch size 128, momentum 0.9,
weight decay 5e-4, learning rate 0.01 divided by 10 three times, about 90 epochs, ten
crops at test time. The paper divided the rate when the validation error stopped
falling and does not give the steps; here they are at each third of the run and once
near its end.

Pixels keep their scale of 0..255, minus a single mean, 116: initial weights and
response normalisation assume this scale. The colour shift's standard deviation, 0.1
for pixels in 0..1, is therefore 0.1 * 255.

    python -m experiments.prepare imagenet2012 --data_dir=DATA --manual_dir=TARS
    python -m experiments.train --config=configs/alexnet_imagenet.py \\
        --workdir=runs/alexnet_imagenet --config.dataset.data_dir=DATA

Hardware and time: GPUs; not measured.
Expected top-1 error (%), ten crops, table 2 of the paper: 40.7.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.model = {
        "name": "alexnet",
        "towers": 2,
        "lrn": True,
        "dropout": 0.5,
        "initializer": "paper",
        "image_size": 227,  # for the paper's 224 see `cnn_jax.models.alexnet`
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
            "train": {"name": "alexnet", "size": 227, "shorter": 256},
            "test": {"name": "ten_crop", "size": 227, "shorter": 256},
            "workers": 8,
            "clean_images": 50_000,
            "statistics_images": 100_000,
            "damaged": "refuse",
        },
    }
    config.preprocess = {"name": "interval", "low": -116.0, "high": 139.0}
    config.augment = {"name": "pca_colour", "deviation": 25.5}
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "decay": "all",
    }
    config.schedule = {
        "name": "piecewise",
        "rates": (1e-2, 1e-3, 1e-4, 1e-5),
        "boundaries": (300_000, 600_000, 800_000),
    }
    config.warmup = {"rate": 0.0, "until_train_error": 0.0}
    config.batch_size = 128
    config.eval_batch_size = 128
    config.steps = 900_000
    config.steps_per_execution = 1
    config.log_every = 500
    config.eval_every = 10_000
    config.checkpoint_every = 10_000
    config.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 0,
    }
    return config
