"""The hyperparameters of every config, copied from the papers, with the section.

One file, beyond 350 lines, because it is one table: a recipe is read beside the others.

Values that a paper does not give, or that a config changes on purpose, are listed under
'here', with the reason. `tests.test_recipes` compares them with the configs; nothing in
this file is derived from the configs.
"""

import math
from typing import Any

Recipe = dict[str, dict[str, Any]]  # source to the values of keys

PLAIN_SGD = {
    "optimizer.name": "sgd",
    "optimizer.nesterov": False,
    "schedule.name": "piecewise",
}
NO_WARMUP = {"warmup.rate": 0.0, "warmup.until_train_error": 0.0}
SOFTMAX = {"loss.name": "softmax_cross_entropy"}
OWN_GROUPS = {"parallel.bn_group_size": 0}  # batch norm, if any, is per device
DIGITS = {"dataset.name": "digits"}


def changed(base: Recipe, source: str, *absent: str, **values: Any) -> Recipe:
    """A recipe with values replaced from another source; '__' stands for a dot."""
    values = {key.replace("__", "."): value for key, value in values.items()}
    gone = {*absent, *values}
    rest = {
        origin: {key: value for key, value in own.items() if key not in gone}
        for origin, own in base.items()
    }
    return {**rest, source: values}


def of_runs(recipe: Recipe) -> Recipe:
    """The recipe of a run, with its keys as in a study's config."""
    return {
        source: {f"run.{key}": value for key, value in own.items()}
        for source, own in recipe.items()
    }


# He, Zhang, Ren and Sun (2015), "Deep Residual Learning for Image Recognition".
ARMS = {
    "families.plain.model.shortcut": "none",
    "families.residual.model.shortcut": "A",
}
HE_CIFAR: Recipe = {
    "section 4.2: 3x3 layers of 16, 32 and 64 filters, identity shortcuts": {
        "model.name": "cifar_resnet",
        "model.block": "basic",
        "model.widths": (16, 32, 64),
    },
    "section 3.1, softmax": SOFTMAX,
    "section 4.2: all 50k images, the per-pixel mean subtracted": {
        "dataset.name": "cifar10",
        "dataset.validation_size": 0,
        "preprocess.name": "standardize",
        "preprocess.mean": "pixel",
        "preprocess.std": "none",
    },
    "section 4.2: 4 pixels padded on each side, 32x32 crops, flips": {
        "augment.name": "crop_flip",
        "augment.pad": 4,
        "augment.flip": True,
    },
    "section 4.2: weight decay of 0.0001 and momentum of 0.9": {
        **PLAIN_SGD,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 0.0001,
    },
    "here: Caffe, which the paper used, decays every parameter": {
        "optimizer.decay": "all"
    },
    "section 4.2: 128 images on two GPUs": {
        "batch_size": 128,
        "parallel.bn_group_size": 64,
    },
    "section 4.2: 0.1, divided by 10 at 32k and 48k, terminated at 64k": {
        "schedule.rates": (0.1, 0.01, 0.001),
        "schedule.boundaries": (32_000, 48_000),
        "steps": 64_000,
    },
    "section 4.2: a warm-up at 110 layers alone": NO_WARMUP,
    "here: single precision": {"model.dtype": "float32"},
}
CIFAR_STUDY: Recipe = {
    **of_runs(HE_CIFAR),
    "section 4.2: identity shortcuts in all cases (option A)": ARMS,
    "section 4.2: n = 3, 5, 7, 9 and 18": {"depths": (20, 32, 44, 56, 110)},
    "table 6: five runs (of the net of 110 layers)": {"seeds": (0, 1, 2, 3, 4)},
    "section 4.2: 0.01 until the training error is below 80 %": {
        "overrides.depth110.warmup.rate": 0.01,
        "overrides.depth110.warmup.until_train_error": 0.8,
    },
    "here: whether the net of 1202 layers had it the paper does not say": {
        "overrides.depth1202.warmup.rate": 0.01,
        "overrides.depth1202.warmup.until_train_error": 0.8,
    },
}
WARMUPS = [key for own in CIFAR_STUDY.values() for key in own if "overrides" in key]
DIGITS_RUN = changed(
    HE_CIFAR,
    "here: half the width, 8x8 images, a digit is no mirror image of itself, an "
    "epoch has 12 steps, one batch-norm group",
    *("dataset.validation_size", "augment.pad", "augment.flip"),
    model__widths=(8, 16, 32),
    dataset__name="digits",
    augment__name="none",
    parallel__bn_group_size=0,
)

# Section 3.4, ImageNet.
HE_IMAGENET: Recipe = {
    "section 3.4: shorter side in [256, 480], 224x224 crops, flips": {
        "dataset.name": "imagenet2012",
        "dataset.train_split": "train",
        "dataset.test_split": "validation",
        "dataset.validation_size": 0,
        "dataset.stream.train.name": "scale",
        "dataset.stream.train.size": 224,
        "dataset.stream.train.shorter": (256, 480),
        "dataset.stream.test.size": 224,
        "dataset.stream.test.shorter": 256,
    },
    "section 3.4: the per-pixel mean subtracted": {
        "preprocess.name": "standardize",
        "preprocess.mean": "pixel",
        "preprocess.std": "none",
    },
    "section 3.4: the standard colour augmentation (of Krizhevsky et al. 2012)": {
        "augment.name": "pca_colour",
        "augment.deviation": 0.1,
    },
    "section 3.4: weight decay of 0.0001 and momentum of 0.9": {
        **PLAIN_SGD,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 0.0001,
    },
    "here: Caffe, which the paper used, decays every parameter": {
        "optimizer.decay": "all"
    },
    "section 3.4: SGD with a mini-batch size of 256": {"batch_size": 256},
    "here: eight GPUs": {"parallel.bn_group_size": 32},
    "section 3.4: 0.1, divided by 10 when the error plateaus, 60 x 10^4 iterations": {
        "schedule.rates": (0.1, 0.01, 0.001, 0.0001),
        "steps": 600_000,
    },
    "here: when the error plateaus, by figure 4": {
        "schedule.boundaries": (150_000, 300_000, 450_000)
    },
    "section 3.1, softmax": SOFTMAX,
    "here: none": NO_WARMUP,
    "here: single precision": {"model.dtype": "float32"},
}

# LeCun, Bottou, Bengio and Haffner (1998), "Gradient-Based Learning Applied to
# Document Recognition".
LENET: Recipe = {
    "section II.B: squashing 1.7159 tanh(2x/3), trainable subsampling, the "
    "connections of table I, RBF units": {
        "model.name": "lenet5",
        "model.activation": "tanh",
        "model.subsampling": "trainable",
        "model.c3": "table",
        "model.output": "rbf",
    },
    "section II.C, equation 9": {"loss.name": "map"},
    "here: the paper does not give j": {"loss.j": 3.0},
    "section III.A: 60,000 images, 28x28 in a field of 32x32": {
        "dataset.name": "mnist",
        "dataset.validation_size": 0,
        "preprocess.pad": 2,
        "preprocess.size": 0,
    },
    "section II.B: the background is -0.1, the foreground 1.175": {
        "preprocess.name": "interval",
        "preprocess.low": -0.1,
        "preprocess.high": 1.175,
    },
    "section III.B: no distortions": {"augment.name": "none"},
    "section III.C: plain stochastic gradient descent": {
        **PLAIN_SGD,
        "optimizer.momentum": 0.0,
        "optimizer.weight_decay": 0.0,
        "optimizer.decay": "all",
    },
    "section III.B: 20 iterations through 60,000 images, here 16 at a time": {
        "batch_size": 16,
        "steps": 20 * 60_000 // 16,
    },
    "here: rates for a plain step instead of the diagonal Levenberg-Marquardt step": {
        "schedule.rates": (5e-3, 1.5e-3, 5e-4, 1.5e-4),
        "schedule.boundaries": (22_500, 45_000, 60_000),
    },
    "here: none": {**NO_WARMUP, **OWN_GROUPS},
    "here: single precision": {"model.dtype": "float32"},
}
LENET_MODERN = changed(
    LENET,
    "here: today's parts and their rates",
    "loss.j",
    model__name="lenet5_modern",
    model__activation="relu",
    model__subsampling="max",
    model__c3="dense",
    model__output="linear",
    loss__name="softmax_cross_entropy",
    optimizer__momentum=0.9,
    optimizer__weight_decay=5e-4,
    batch_size=128,
    steps=20 * 469,
    schedule__rates=(1e-2, 1e-3, 1e-4),
    schedule__boundaries=(12 * 469, 18 * 469),
)
GLYPHS = (
    "dataset.validation_size",
    "preprocess.pad",
    "model.c3",
    "model.subsampling",
    "model.dtype",
)

# Krizhevsky, Sutskever and Hinton (2012), "ImageNet Classification with Deep
# Convolutional Neural Networks".
ALEXNET: Recipe = {
    "section 3.2, two GPUs; 3.3, normalisation; 3.5, softmax": {
        "model.name": "alexnet",
        "model.towers": 2,
        "model.lrn": True,
        **SOFTMAX,
    },
    "section 4.2: dropout of 0.5": {"model.dropout": 0.5},
    "section 5: weights from a Gaussian of deviation 0.01, biases of 0 and 1": {
        "model.initializer": "paper"
    },
    "here: 227, with which the paper's 55x55 maps come out; it says 224": {
        "model.image_size": 227,
        "dataset.stream.train.size": 227,
        "dataset.stream.test.size": 227,
    },
    "section 2: shorter side of 256, the central 256x256 patch": {
        "dataset.name": "imagenet2012",
        "dataset.train_split": "train",
        "dataset.test_split": "validation",
        "dataset.validation_size": 0,
        "dataset.stream.train.shorter": 256,
        "dataset.stream.test.shorter": 256,
    },
    "section 4.1: patches and reflections of it, ten of them at test": {
        "dataset.stream.train.name": "alexnet",
        "dataset.stream.test.name": "ten_crop",
    },
    "here: pixels of 0..255 less one mean of 116": {
        "preprocess.name": "interval",
        "preprocess.low": -116.0,
        "preprocess.high": 255.0 - 116.0,
    },
    "section 4.1: principal components of colour, deviation 0.1 (of 255 here)": {
        "augment.name": "pca_colour",
        "augment.deviation": 0.1 * 255,
    },
    "section 5: batch of 128, momentum of 0.9, weight decay of 0.0005": {
        **PLAIN_SGD,
        "batch_size": 128,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 0.0005,
        "optimizer.decay": "all",
    },
    "section 5: 0.01, divided by 10 three times, roughly 90 cycles": {
        "schedule.rates": (1e-2, 1e-3, 1e-4, 1e-5),
        "steps": 900_000,
    },
    "here: the paper does not say when": {
        "schedule.boundaries": (300_000, 600_000, 800_000)
    },
    "here: none": {**NO_WARMUP, **OWN_GROUPS},
    "here: single precision": {"model.dtype": "float32"},
}
STREAM = tuple(
    *([key for own in ALEXNET.values() for key in own if key.startswith("dataset.")],)
)

# Simonyan and Zisserman (2014), "Very Deep Convolutional Networks for Large-Scale
# Image Recognition".
VGG: Recipe = {
    "table 1, configuration D; section 2.1, soft-max": {
        "model.name": "vgg16",
        "model.batch_norm": False,
        **SOFTMAX,
    },
    "section 3.1: batch of 256, momentum of 0.9, weight decay 5 10^-4, dropout 0.5": {
        **PLAIN_SGD,
        "batch_size": 256,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 5e-4,
        "optimizer.decay": "all",
        "model.dropout": 0.5,
    },
    "section 3.1: 10^-2, divided by 10 three times, stopped after 370K iterations": {
        "schedule.rates": (1e-2, 1e-3, 1e-4, 1e-5),
        "steps": 370_000,
    },
    "here: the paper does not say when": {
        "schedule.boundaries": (150_000, 250_000, 330_000)
    },
    "section 3.1: Glorot and Bengio's initialisation makes pre-training needless": {
        "model.initializer": "glorot"
    },
    "section 3.1: shorter side in [256, 512], 224x224 crops, flips": {
        "dataset.name": "imagenet2012",
        "dataset.train_split": "train",
        "dataset.test_split": "validation",
        "dataset.validation_size": 0,
        "dataset.stream.train.name": "scale",
        "dataset.stream.train.size": 224,
        "dataset.stream.train.shorter": (256, 512),
    },
    "here: the central crop": {
        "dataset.stream.test.name": "center",
        "dataset.stream.test.size": 224,
        "dataset.stream.test.shorter": 256,
    },
    "here: pixels of 0..255 less one mean of 116": {
        "preprocess.name": "interval",
        "preprocess.low": -116.0,
        "preprocess.high": 255.0 - 116.0,
    },
    "section 3.1: random colour shift, of Krizhevsky et al. (0.1 of 255)": {
        "augment.name": "pca_colour",
        "augment.deviation": 0.1 * 255,
    },
    "here: none": {**NO_WARMUP, **OWN_GROUPS},
    "here: single precision": {"model.dtype": "float32"},
}

# Lin, Chen and Yan (2013), "Network In Network".
NIN: Recipe = {
    "section 4.1: three mlpconv layers, dropout after the first two, of 0.5": {
        "model.name": "nin_cifar",
        "model.width": 1.0,
        "model.batch_norm": False,
        "model.dropout": 0.5,
        **SOFTMAX,
    },
    "section 4.1: batches of 128": {"batch_size": 128},
    "section 4.2: translation and horizontal flipping": {
        "dataset.name": "cifar10",
        "dataset.validation_size": 0,
        "augment.name": "crop_flip",
        "augment.flip": True,
    },
    "here: translation by four pixels": {"augment.pad": 4},
    "here: instead of contrast normalisation and whitening": {
        "preprocess.name": "standardize",
        "preprocess.mean": "channel",
        "preprocess.std": "channel",
    },
    "here: the paper leaves rates and decay open": {
        **PLAIN_SGD,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 5e-4,
        "optimizer.decay": "kernels",
        "schedule.rates": (0.02, 0.002, 0.0002),
        "schedule.boundaries": (160 * 390, 200 * 390),
        "steps": 230 * 390,
    },
    "here: none": {**NO_WARMUP, **OWN_GROUPS},
    "here: single precision": {"model.dtype": "float32"},
}
ENLARGED = {
    "dataset__name": "digits",
    "augment__name": "none",
    "preprocess__name": "standardize",
    "preprocess__mean": "channel",
    "preprocess__std": "channel",
    "preprocess__size": 32,
    "batch_size": 32,
}
SMALL = "here: narrow, on digits enlarged, with rates of its own"

# LeCun et al. (1998), sections V to VIII.
LINES: Recipe = {
    "section II.B: the background is -0.1, the foreground 1.175": {
        "preprocess.name": "interval",
        "preprocess.low": -0.1,
        "preprocess.high": 1.175,
    },
    "here: lines of the embedded digits": {
        "dataset.name": "digit_strings",
        "dataset.digits.name": "digits",
        "dataset.isolated": False,
        "dataset.num_lines": 500,
        "dataset.min_length": 3,
        "dataset.max_length": 5,
        "dataset.height": 32,
        "dataset.glyph_height": 20,
        "dataset.spacing": (1, 5),
        "dataset.touching": 0.5,
        "dataset.overlap": 4,
        "dataset.jitter": 3,
        "dataset.noise": 0.0,
        "augment.name": "none",
    },
    "here: Adam, Kingma and Ba (2014), algorithm 1, without decay": {
        "optimizer.name": "adamw",
        "optimizer.b1": 0.9,
        "optimizer.b2": 0.999,
        "optimizer.epsilon": 1e-8,
        "optimizer.weight_decay": 0.0,
        "optimizer.decay": "kernels",
        "schedule.name": "cosine",
        "schedule.warmup_steps": 0,
    },
    "here: none": {**NO_WARMUP, **OWN_GROUPS},
}
FORWARD = "discriminative_forward"  # section VI-D
ISOLATED = changed(
    LINES,
    "section VIII: a recogniser that has seen single characters",
    model__name="lenet5_modern",
    loss__name="softmax_cross_entropy",
    loss__label_smoothing=0.0,
    dataset__isolated=True,
    schedule__rate=2e-3,
    schedule__steps=600,
    batch_size=64,
    steps=600,
)
SYSTEM = changed(
    LINES,
    "section V: heuristic over-segmentation, section VI-D: discriminative forward",
    model__name="gtn",
    model__recognizer="lenet5_modern",
    model__cuts=14,
    model__pieces=4,
    model__average=16,
    loss__name="strings",
    loss__criterion=FORWARD,
    schedule__rate=1e-3,
    schedule__steps=200,
    batch_size=32,
    steps=200,
)
DISPLACEMENT = changed(
    LINES,
    "section VII: a space displacement network, section VI-D: discriminative forward",
    model__name="sdnn",
    model__recognizer="lenet5_modern",
    model__margin=12,
    loss__name="strings",
    loss__criterion=FORWARD,
    schedule__rate=3e-3,
    schedule__steps=800,
    batch_size=32,
    steps=800,
)
MNIST_GLYPHS = {
    "dataset__digits__name": "mnist",
    "dataset__glyph_height": 28,
    "dataset__jitter": 2,
}


def of_systems(**systems: Recipe) -> Recipe:
    """The combined recipes of a config's systems."""
    return {
        f"{name}: {source}": {f"{name}.{key}": value for key, value in own.items()}
        for name, recipe in systems.items()
        for source, own in recipe.items()
    } | {"here: three seeds": {"seeds": (0, 1, 2)}}


def longer(recipe: Recipe, steps: int, **values: Any) -> Recipe:
    """The recipe on MNIST at its native image size."""
    values = {**MNIST_GLYPHS, "steps": steps, "schedule__steps": steps, **values}
    return changed(recipe, "here: MNIST at 28x28, and more steps", **values)


DIGITS_STUDY: Recipe = {
    **of_runs(
        changed(
            DIGITS_RUN,
            "here: 12 epochs",
            "model.dtype",
            steps=140,
            schedule__rates=(0.1, 0.01),
            schedule__boundaries=(105,),
        )
    ),
    "section 4.2: identity shortcuts in all cases (option A)": ARMS,
    "here: depths and seeds that a laptop trains in a minute": {
        "depths": (8, 20, 32, 56),
        "seeds": (0, 1, 2),
    },
}
RECIPES: dict[str, Recipe] = {
    "degradation_cifar10": CIFAR_STUDY,
    "degradation_cifar10_short": changed(
        CIFAR_STUDY,
        "here: a quarter of the paper's schedule; no 110 layers, one seed",
        *WARMUPS,
        depths=(20, 32, 44, 56),
        seeds=(0,),
        run__steps=64_000 // 4,
        run__schedule__boundaries=(32_000 // 4, 48_000 // 4),
    ),
    "degradation_cifar10_cpu": changed(
        CIFAR_STUDY,
        "here: a quarter of the width, five epochs, divided after three and four",
        *WARMUPS,
        depths=(8, 20, 32, 56),
        seeds=(0,),
        run__model__widths=(4, 8, 16),
        run__steps=5 * 391,
        run__schedule__boundaries=(3 * 391, 4 * 391),
        run__parallel__bn_group_size=0,
    ),
    "degradation_digits": DIGITS_STUDY,
    "degradation_mnist": changed(
        {
            **of_runs(HE_CIFAR),
            "section 4.2: identity shortcuts in all cases (option A)": ARMS,
        },
        "here: half the width, no flips, crops of 2 pixels, ten epochs of 469 steps",
        run__model__widths=(8, 16, 32),
        run__dataset__name="mnist",
        run__augment__pad=2,
        run__augment__flip=False,
        run__parallel__bn_group_size=0,
        run__steps=4_690,
        run__schedule__boundaries=(2_350, 3_520),
        depths=(8, 20, 32, 56),
        seeds=(0, 1, 2),
    ),
    "degradation_imagenet": changed(
        {**of_runs(HE_IMAGENET), "table 2: option A": ARMS},
        "table 1 and table 2; here: one seed, the central crop",
        run__model__name="resnet18",
        run__model__widths=(64, 128, 256, 512),
        run__dataset__stream__test__name="center",
        depths=(18, 34),
        seeds=(0,),
    ),
    "resnet50_imagenet": changed(
        HE_IMAGENET,
        "table 1; section 4.1: bottlenecks with option B; section 3.4: ten crops",
        model__name="resnet50",
        model__shortcut="B",
        model__bottleneck_stride="1x1",
        model__preactivation=False,
        model__zero_scale=False,
        dataset__stream__test__name="ten_crop",
    ),
    # Goyal et al. (2017), "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour".
    "resnet50_imagenet_90epochs": {
        "section 5.1: the ResNet-50 variant with the stride in the 3x3 layers": {
            "model.name": "resnet50",
            "model.shortcut": "B",
            "model.preactivation": False,
            "model.bottleneck_stride": "3x3",
        },
        "section 5.1: gamma = 0 for the last BN of a block": {"model.zero_scale": True},
        "here: nothing in half precision": {"model.dtype": "float32"},
        "section 5.1: scale and aspect ratio augmentation, centre crops of 224": {
            **SOFTMAX,
            "dataset.name": "imagenet2012",
            "dataset.train_split": "train",
            "dataset.test_split": "validation",
            "dataset.validation_size": 0,
            "dataset.stream.train.name": "inception",
            "dataset.stream.train.size": 224,
            "dataset.stream.test.name": "center",
            "dataset.stream.test.size": 224,
            "dataset.stream.test.shorter": 256,
            "augment.name": "none",
        },
        "section 5.1: normalised by the mean and the deviation of each colour": {
            "preprocess.name": "standardize",
            "preprocess.mean": "channel",
            "preprocess.std": "channel",
        },
        "section 5.1: Nesterov momentum of 0.9, decay of 0.0001, not of BN's": {
            "optimizer.name": "sgd",
            "optimizer.momentum": 0.9,
            "optimizer.nesterov": True,
            "optimizer.weight_decay": 0.0001,
            "optimizer.decay": "kernels",
        },
        "section 5.1: 0.1 for 256 images, divided after 30, 60 and 80 of 90 epochs": {
            "schedule.name": "piecewise",
            "schedule.rates": (0.1, 0.01, 0.001, 0.0001),
            "schedule.boundaries": tuple(
                math.ceil(epochs * 1_281_167 / 256) for epochs in (30, 60, 80)
            ),
            "schedule.per_images": 256,
            "steps": math.ceil(90 * 1_281_167 / 256),
            "batch_size": 256,
        },
        "section 2.2: a gradual warm-up of 5 epochs": {
            "schedule.warmup_steps": math.ceil(5 * 1_281_167 / 256),
            **NO_WARMUP,
        },
        "section 3: batch norm over 32 images": {"parallel.bn_group_size": 32},
    },
    # He, Zhang, Ren and Sun (2016), "Identity Mappings in Deep Residual Networks".
    "preresnet164_cifar10": changed(
        HE_CIFAR,
        "table 4: a bottleneck net of 164 layers, 1.7M parameters; appendix: 0.01 for "
        "400 iterations",
        model__depth=164,
        model__block="bottleneck",
        model__shortcut="B",
        model__preactivation=True,
        schedule__rates=(0.01, 0.1, 0.01, 0.001),
        schedule__boundaries=(400, 32_000, 48_000),
    ),
    "resnet_digits": changed(
        DIGITS_RUN,
        "here: one net for 17 epochs; section 4.2: option A",
        model__depth=20,
        model__shortcut="A",
        steps=200,
        schedule__rates=(0.1, 0.01),
        schedule__boundaries=(150,),
    ),
    "resnet50_digits": changed(
        HE_IMAGENET,
        f"table 1; section 4.1: option B; {SMALL}",
        *(*STREAM, "model.dtype", "augment.deviation"),
        model__name="resnet50",
        model__widths=(8, 16, 32, 64),
        model__shortcut="B",
        model__bottleneck_stride="1x1",
        **ENLARGED,
        parallel__bn_group_size=0,
        steps=2000,
        schedule__rates=(0.1, 0.01),
        schedule__boundaries=(1500,),
    ),
    "lenet5_mnist": LENET,
    "lenet5_digits": changed(
        LENET,
        "here: 8x8 digits enlarged, 30 epochs",
        *GLYPHS,
        dataset__name="digits",
        preprocess__size=32,
        steps=2820,
        schedule__rates=(5e-3, 1e-3),
        schedule__boundaries=(2_250,),
    ),
    "lenet5_modern_mnist": LENET_MODERN,
    "lenet5_modern_digits": changed(
        LENET_MODERN,
        "here: 8x8 digits enlarged, 15 epochs; the module's parts by its name",
        *(*GLYPHS, "model.activation", "model.output"),
        dataset__name="digits",
        preprocess__size=32,
        batch_size=32,
        steps=705,
        schedule__rates=(0.01, 0.001),
        schedule__boundaries=(470,),
    ),
    "alexnet_imagenet": ALEXNET,
    "alexnet_digits": changed(
        ALEXNET,
        SMALL,
        *(*STREAM, "augment.deviation", "preprocess.low", "preprocess.high"),
        *("model.towers", "model.lrn", "model.dropout", "model.dtype"),
        model__widths=(16, 32, 64, 64, 32),
        model__hidden=(128, 128),
        model__image_size=32,
        model__stem=(5, 1, 2),
        model__initializer="he",
        **ENLARGED,
        steps=940,
        schedule__rates=(0.01, 0.001),
        schedule__boundaries=(705,),
    ),
    "vgg16_imagenet": VGG,
    "vgg16_digits": changed(
        VGG,
        SMALL,
        *(*STREAM, "augment.deviation", "preprocess.low", "preprocess.high"),
        "model.dtype",
        model__batch_norm=True,
        model__widths=(8, 16, 32, 64, 64),
        model__hidden=(64,),
        model__image_size=32,
        model__dropout=0.0,
        model__initializer="he",
        **ENLARGED,
        steps=705,
        schedule__rates=(0.05, 0.005),
        schedule__boundaries=(470,),
    ),
    "nin_cifar10": NIN,
    "nin_digits": changed(
        NIN,
        SMALL,
        *("dataset.validation_size", "augment.flip", "augment.pad", "model.dtype"),
        model__width=0.25,
        model__batch_norm=True,
        model__dropout=0.0,
        **{**ENLARGED, "preprocess__size": 16},
        optimizer__weight_decay=1e-4,
        optimizer__decay="all",
        steps=1410,
        schedule__rates=(0.05, 0.005),
        schedule__boundaries=(940,),
    ),
    "gtn_digits": of_systems(
        isolated=ISOLATED, system=SYSTEM, displacement=DISPLACEMENT
    ),
    "gtn_mnist": of_systems(
        isolated=longer(ISOLATED, 3000),
        system=longer(
            SYSTEM,
            900,
            batch_size=16,
            model__cuts=16,
            model__average=24,
            model__radius=2,
            model__depth=0.1,
        ),
        displacement=longer(DISPLACEMENT, 2000),
    ),
    "why_resnets_work_digits": {
        **{
            source: {f"study.{key}": value for key, value in own.items()}
            for source, own in DIGITS_STUDY.items()
        },
        "Balduzzi et al. (2017), figures 1 and 2: one input, 200 units a layer, 2 to "
        "50 layers, 256 points, beta of 0.1, 20 nets, 15 lags": {
            "grid.depths": (2, 10, 24, 50),
            "grid.width": 200,
            "grid.points": 256,
            "grid.beta": 0.1,
            "grid.seeds": 20,
            "grid.lags": 16,
        },
        "He et al. (2015), figure 7: on the training set": {"responses.images": 0},
        "Huang et al. (2016), section 5: p_L = 0.5": {
            "stochastic_depth.depth": 56,
            "stochastic_depth.death_rate": 0.5,
            "stochastic_depth.removed": (1, 2, 4, 8, 12),
            "stochastic_depth.draws": 5,
        },
        "Veit et al. (2016), figures 3 to 6, here on fewer blocks": {
            "lesions.images": 0,
            "lesions.removed": (1, 2, 4, 8, 12, 16, 20),
            "lesions.swaps": (1, 2, 4, 8, 16, 32),
            "lesions.draws": 5,
            "paths.depths": (56,),
            "paths.images": 32,
            "paths.draws": 10,
        },
        "Li et al. (2018), figure 1: from -1 to 1; here 21 points for 51": {
            "landscape.depths": (20, 56),
            "landscape.points": 21,
            "landscape.extent": 1.0,
            "landscape.images": 256,
            "landscape.seed": 0,
        },
        "Szegedy et al. (2014), figure 2: 28x28x192 and 16 channels between": {
            "one_by_one.size": 28,
            "one_by_one.channels": 192,
            "one_by_one.shrink": 16,
            "one_by_one.width": 32,
            "one_by_one.batch": 16,
            "one_by_one.seeds": 3,
        },
        "here: sizes that a laptop measures in minutes": {
            "insertion.family": "plain",
            "insertion.depth": 20,
            "insertion.site": "stage2_block2",
            "insertion.blocks": (1, 6),
            "insertion.rates": (0.01, 0.1),
            "insertion.steps": (0, 1, 2, 5, 10, 20, 40),
            "gradients.batches": 4,
            "gradients.along_training": (20, 56),
            "gradients.snapshots": (0, 1, 2, 5, 20, 70, 140),
            "shattered.images": 64,
            "shattered.distances": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
            "linearity.images": 0,
        },
    },
}
