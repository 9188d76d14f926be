"""Degradation study on ImageNet: plain and residual nets of 18 and 34 layers.

He et al. (2015), section 3.4, table 2 and figure 4: SGD with batch size 256 (here as
eight groups of 32 for batch norm, one for each of eight GPUs), learning rate 0.1
divided by 10 where the error plateaus (in figure 4 about every 150k steps), 600k
steps, random shorter side in [256, 480], 224x224 crop, flip, colour shift, per-pixel
mean, option A. The test images are central crops; the paper's ten crops take ten times
as long: ``--config.run.dataset.stream.test.name=ten_crop``.

    pip install -e '.[streams,prepare]'
    python -m experiments.prepare imagenet2012 --data_dir=DATA --manual_dir=TARS
    python -m experiments.degradation --config=configs/degradation_imagenet.py \\
        --config.run.dataset.data_dir=DATA --config.run.dataset.stream.workers=16

To read class folders of JPEG files instead: ``--config.run.dataset.name=folder
--config.run.dataset.test_split=val``.

Hardware and time: eight GPUs; not measured. 2 depths x 2 families x 1 seed.
Expected top-1 error (%), ten crops, table 2: plain-18 27.94, plain-34 28.54,
ResNet-18 27.88, ResNet-34 25.03.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "degradation_imagenet"
    config.families = {
        "plain": {"model": {"shortcut": "none"}},
        "residual": {"model": {"shortcut": "A"}},
    }
    config.depths = (18, 34)
    config.seeds = (0,)
    config.overrides = {}

    run = config.run = ConfigDict()
    run.seed = 0  # replaced by each of config.seeds
    run.model = {
        "name": "resnet18",
        "depth": 18,  # replaced by each of config.depths
        "shortcut": "A",  # replaced by each family
        "widths": (64, 128, 256, 512),
        "dtype": "float32",
    }
    run.loss = {"name": "softmax_cross_entropy"}
    run.dataset = {
        "name": "imagenet2012",
        "data_dir": "",
        "train_split": "train",
        "test_split": "validation",
        "validation_size": 0,
        "stream": {
            "train": {"name": "scale", "size": 224, "shorter": (256, 480)},
            "test": {"name": "center", "size": 224, "shorter": 256},
            "workers": 8,
            "clean_images": 50_000,
            "statistics_images": 100_000,
            "damaged": "refuse",
        },
    }
    run.preprocess = {"name": "standardize", "mean": "pixel", "std": "none"}
    run.augment = {"name": "pca_colour", "deviation": 0.1}
    run.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "decay": "all",
    }
    run.schedule = {
        "name": "piecewise",
        "rates": (0.1, 0.01, 0.001, 0.0001),
        "boundaries": (150_000, 300_000, 450_000),
    }
    run.warmup = {"rate": 0.0, "until_train_error": 0.0}
    run.batch_size = 256
    run.eval_batch_size = 256
    run.steps = 600_000
    run.steps_per_execution = 1
    run.log_every = 500
    run.eval_every = 5_000
    run.checkpoint_every = 5_000
    run.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 32,
    }
    return config
