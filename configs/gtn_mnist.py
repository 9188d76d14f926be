"""Lines of touching MNIST digits at their own 28x28, as in `gtn_digits`.

LeCun, Bottou, Bengio and Haffner (1998), sections V to VII; half of the
neighbours touch, and share up to four columns. MNIST must have been prepared by
TFDS; ``dataset.digits.data_dir`` or TFDS_DATA_DIR says where.

    python -m experiments.gtn --config=configs/gtn_mnist.py

Hardware and time: not measured.
Expected: not measured.
"""

from ml_collections import ConfigDict

from configs import gtn_digits


def get_config() -> ConfigDict:
    config = gtn_digits.get_config()
    config.name = "gtn_mnist"
    for run, steps in (
        (config.isolated, 3000),
        (config.system, 900),
        (config.displacement, 2000),
    ):
        run.dataset.digits.name = "mnist"
        run.dataset.glyph_height = 28
        run.dataset.jitter = 2
        run.steps = steps
        run.schedule.steps = steps
    config.system.batch_size = 16
    # Thin strokes have more thin places than the blurred ones of 8x8 digits.
    config.system.model.update({"cuts": 16, "average": 24, "radius": 2, "depth": 0.1})
    return config
