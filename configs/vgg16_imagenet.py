"""VGG-16 (configuration D) on ImageNet.

Simonyan and Zisserman (2014), section 3.1: batch size 256, momentum 0.9, weight decay
5e-4, dropout, learning rate 0.01 divided by 10 three times, 370,000 steps, random
shorter side in [256, 512], 224x224 crop, flip, colour shift. The paper starts from the
weights of configuration A, and notes that Glorot initialisation makes this
unnecessary; Glorot is the default here. The paper divided the rate when the validation
error stopped falling; here it is divided after 150,000, 250,000 and 330,000 steps.

Pixels keep their scale of 0..255, minus a single mean, 116: sixteen layers with Glorot
initialisation would shrink inputs in 0..1 to nothing. The colour shift's standard
deviation, 0.1 for pixels in 0..1, is therefore 0.1 * 255.

    python -m experiments.prepare imagenet2012 --data_dir=DATA --manual_dir=TARS
    python -m experiments.train --config=configs/vgg16_imagenet.py \\
        --workdir=runs/vgg16_imagenet --config.dataset.data_dir=DATA

Hardware and time: GPUs; not measured.
Expected top-1 error (%), table 3 of the paper: 25.6, at a scale of 384 over the whole
image; the central crop used here is a harder test.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.model = {
        "name": "vgg16",
        "batch_norm": False,
        "dropout": 0.5,
        "initializer": "glorot",
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
            "train": {"name": "scale", "size": 224, "shorter": (256, 512)},
            "test": {"name": "center", "size": 224, "shorter": 256},
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
        "boundaries": (150_000, 250_000, 330_000),
    }
    config.warmup = {"rate": 0.0, "until_train_error": 0.0}
    config.batch_size = 256
    config.eval_batch_size = 256
    config.steps = 370_000
    config.steps_per_execution = 1
    config.log_every = 500
    config.eval_every = 5_000
    config.checkpoint_every = 5_000
    config.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 0,
    }
    return config
