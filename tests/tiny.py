"""A run that takes only seconds: the starting point of training tests."""

from typing import Any

from cnn_jax.study import merge

CONFIG: dict[str, Any] = {
    "seed": 0,
    "model": {"name": "cifar_resnet", "depth": 8, "widths": (2, 2, 2)},
    "loss": {"name": "softmax_cross_entropy"},
    "dataset": {"name": "tests.tiny:noise", "size": 40},
    "preprocess": {"name": "standardize"},
    "augment": {"name": "crop_flip", "pad": 1, "flip": True},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4},
    "schedule": {"name": "piecewise", "rates": (0.1, 0.01), "boundaries": (9,)},
    "warmup": {"rate": 0.0, "until_train_error": 0.0},
    "batch_size": 16,
    "eval_batch_size": 24,
    "steps": 12,
    "steps_per_execution": 1,
    "log_every": 3,
    "eval_every": 6,
    "checkpoint_every": 4,
    "parallel": {
        "mode": "pmap",
        "devices": 1,
        "hosts": "one",
        "host_timeout": 60,
        "bn_group_size": 0,
    },
}


def config(**changes: Any) -> dict[str, Any]:
    """The tiny config with changes, section by section."""
    return merge(CONFIG, changes)


def noise(size: int):
    """Random 6x6 images with the label encoded in a corner, so that it is learnable."""
    import numpy as np

    from cnn_jax.data import Arrays, Dataset

    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (size + 10, 6, 6, 1)).astype(np.uint8)
    labels = rng.integers(0, 3, size + 10).astype(np.int32)
    images[:, :2, :2, 0] = (labels * 120)[:, None, None]
    return Dataset(
        "noise",
        3,
        Arrays(images[:size], labels[:size]),
        Arrays(images[size:], labels[size:]),
    )
