"""Degradation study on CIFAR-10 with the paper's recipe.

He et al. (2015), section 4.2 and figure 6: depths 20 to 110, 64k steps of 128
images, learning rate divided by 10 at 32k and 48k, per-pixel mean, pad-4 crops and
flips, batch norm over 64 images (128 on two GPUs). Depth 110 trains at rate 0.01
until its training error falls below 80 %.

    python -m experiments.prepare cifar10
    python -m experiments.degradation --config=configs/degradation_cifar10.py

For the paper's 1,202 layers, use ``--config.depths='(1202,)'``. The paper reports a
test error of 7.93 % and does not state whether it used this warm-up.

Hardware and time: GPUs; docs/degradation.md has the time of shorter runs. 5 depths x
2 families x 5 seeds.
Expected test error (%): residual 8.75, 7.51, 7.17, 6.97, 6.43 (from the paper; depth
110 is the best of 5, with mean 6.61 +- 0.16); plain about 9.8, 9.9, 11.4, 13 (from
reproductions) and above 60 at depth 110 (from the paper's figure).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "degradation_cifar10"
    config.families = {
        "plain": {"model": {"shortcut": "none"}},
        "residual": {"model": {"shortcut": "A"}},
    }
    config.depths = (20, 32, 44, 56, 110)
    config.seeds = (0, 1, 2, 3, 4)
    warmup = {"warmup": {"rate": 0.01, "until_train_error": 0.8}}
    config.overrides = {"depth110": warmup, "depth1202": warmup}

    run = config.run = ConfigDict()
    run.seed = 0  # replaced by each of config.seeds
    run.model = {
        "name": "cifar_resnet",
        "depth": 20,  # replaced by each of config.depths
        "block": "basic",
        "shortcut": "A",  # replaced by each family
        "widths": (16, 32, 64),
        "dtype": "float32",
    }
    run.loss = {"name": "softmax_cross_entropy"}
    run.dataset = {"name": "cifar10", "data_dir": "", "validation_size": 0}
    run.preprocess = {"name": "standardize", "mean": "pixel", "std": "none"}
    run.augment = {"name": "crop_flip", "pad": 4, "flip": True}
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
        "boundaries": (32_000, 48_000),
    }
    run.warmup = {"rate": 0.0, "until_train_error": 0.0}
    run.batch_size = 128
    run.eval_batch_size = 1000
    run.steps = 64_000
    run.steps_per_execution = 50
    run.log_every = 391  # about an epoch
    run.eval_every = 1955
    run.checkpoint_every = 4000
    run.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 64,
    }
    return config
