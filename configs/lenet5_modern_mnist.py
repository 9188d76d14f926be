"""LeNet-5 with modern components on MNIST.

The network of LeCun et al. (1998) with ReLU, max-pooling, a dense C3, softmax and
He initialisation; stochastic gradient descent with momentum and weight decay.

    python -m experiments.prepare mnist
    python -m experiments.train --config=configs/lenet5_modern_mnist.py \\
        --workdir=runs/lenet5_modern_mnist

Hardware and time: not measured.
Expected: not measured.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.model = {
        "name": "lenet5_modern",
        "activation": "relu",
        "subsampling": "max",
        "c3": "dense",
        "output": "linear",
        "dtype": "float32",
    }
    config.loss = {"name": "softmax_cross_entropy"}
    config.dataset = {"name": "mnist", "data_dir": "", "validation_size": 0}
    config.preprocess = {
        "name": "interval",
        "low": -0.1,
        "high": 1.175,
        "size": 0,
        "pad": 2,
    }
    config.augment = {"name": "none"}
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "decay": "all",
    }
    config.schedule = {
        "name": "piecewise",
        "rates": (1e-2, 1e-3, 1e-4),
        "boundaries": (5_628, 8_442),  # after 12 and 18 epochs
    }
    config.warmup = {"rate": 0.0, "until_train_error": 0.0}
    config.batch_size = 128
    config.eval_batch_size = 1000
    config.steps = 9_380  # 20 epochs
    config.steps_per_execution = 67
    config.log_every = 469
    config.eval_every = 2_345
    config.checkpoint_every = 2_345
    config.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 0,
    }
    return config
