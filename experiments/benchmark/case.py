"""One case of the benchmark: network, image size, batch size, dtype and devices."""

import dataclasses
import re
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Float, Int

from cnn_jax import models, names
from cnn_jax.data import Arrays, Dataset
from cnn_jax.models.summary import Summary, summarize

# Optimizer settings of every contender. The rate is low because the images are noise.
RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4
# The "rubbish" constant of LeNet-5's loss, as in configs/lenet5_mnist.py.
MAP_J = 3.0
# Range of the networks' input pixels.
LOW, HIGH = -1.0, 1.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and the conditions under which its train step is timed."""

    net: str  # name as on the command line, 'resnet20@32x32x3'
    model: dict[str, Any]  # config section of the network, without 'dtype'
    image: tuple[int, int, int]  # height, width, channels
    classes: int  # size of the output
    batch: int  # images per step, over all devices
    dtype: str  # of the computation, 'float32' or 'bfloat16'
    devices: int
    dispatch: int = 1  # steps per call to the devices; only this package uses it
    platform: str = "cpu"  # in jax's words: 'cpu', 'gpu', 'tpu'

    def module(self) -> nn.Module:
        """This package's network."""
        return models.create(**self.model, num_classes=self.classes, dtype=self.dtype)

    def summary(self) -> Summary:
        """The network's summary; `ConfigError` if it is not valid for the images."""
        try:
            return summarize(self.module(), self.image)
        except ValueError as error:
            raise names.ConfigError(f"net {self.net!r}: {error}") from error

    @property
    def loss(self) -> str:
        """'map' for outputs that are penalties, else 'softmax_cross_entropy'."""
        penalties = getattr(self.module(), "output", "linear") == "rbf"
        return "map" if penalties else "softmax_cross_entropy"

    def config(self) -> dict[str, Any]:
        """The config of a run that trains this case."""
        rubbish = {"j": MAP_J} if self.loss == "map" else {}
        never = 10**9  # more steps than any benchmark takes
        return {
            "seed": 0,
            "model": {**self.model, "dtype": self.dtype},
            "loss": {"name": self.loss, **rubbish},
            "dataset": {
                "name": f"{__name__}:noise",
                **{"image": self.image, "classes": self.classes, "size": self.batch},
            },
            "preprocess": {"name": "interval", "low": LOW, "high": HIGH},
            "augment": {"name": "none"},
            "optimizer": {
                **{"name": "sgd", "momentum": MOMENTUM, "nesterov": False},
                **{"weight_decay": WEIGHT_DECAY, "decay": "all"},
            },
            "schedule": {"name": "piecewise", "rates": (RATE,), "boundaries": ()},
            "warmup": {"rate": 0.0, "until_train_error": 0.0},
            **{"batch_size": self.batch, "eval_batch_size": self.devices},
            **{"steps": never, "log_every": never, "eval_every": 0},
            **{"checkpoint_every": 0, "steps_per_execution": self.dispatch},
            "parallel": {
                **{"mode": "pmap", "devices": self.devices, "hosts": "one"},
                **{"host_timeout": 1, "bn_group_size": 0},
            },
        }

    def arrays(self) -> tuple[Float[np.ndarray, "n h w c"], Int[np.ndarray, " n"]]:
        """One batch of preprocessed images (NHWC) and their labels."""
        train = noise(self.image, self.classes, self.batch).train
        scale = np.float32((HIGH - LOW) / 255)
        return np.float32(LOW) + scale * train.images, train.labels


def noise(image: tuple[int, int, int], classes: int, size: int) -> Dataset:
    """Random images with random labels, as many as in a batch.

    Each batch is therefore the whole set in another order.

    Args:
      image: height, width, channels.
      classes: labels are drawn from 0 ... classes - 1.
      size: number of training images; there is one test image.

    Returns:
      The dataset, the same for the same arguments.
    """
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (size + 1, *image), np.uint8)
    labels = random.integers(0, classes, size + 1).astype(np.int32)
    train = Arrays(images[:size], labels[:size])
    return Dataset("noise", classes, train, Arrays(images[size:], labels[size:]))


def parse(
    net: str,
    batch: int,
    dtype: str,
    devices: int,
    dispatch: int,
    fields: dict[str, Any],
) -> Case:
    """The case of ``NAME[@HEIGHTxWIDTHxCHANNELS][:BATCH]``.

    NAME is a network in the table of `cnn_jax.models`, or 'resnet' or 'plain' with any
    other depth, for the CIFAR layout. The default image size is the paper's. Fields
    that the network's module lacks are ignored. The other arguments are as in `Case`.

    Raises:
      ConfigError: unknown name, or a description of no valid network.
    """
    found = re.fullmatch(r"(([^@:]+)(?:@(\d+)x(\d+)x(\d+))?)(?::(\d+))?", net)
    if not found:
        raise names.ConfigError(
            f"net {net!r}: expected NAME[@HEIGHTxWIDTHxCHANNELS][:BATCH], such as "
            "lenet5@32x32x3:128"
        )
    net, name, *size, own_batch = found.groups()
    model: dict[str, Any] = {"name": name}
    if name not in models.NETS:
        family = re.fullmatch(r"(resnet|plain)(\d+)", name)
        if not family:
            known = [*models.NETS, "resnetDEPTH", "plainDEPTH"]
            raise names.choices("net", name, known)
        model = {"name": f"cifar_{family[1]}", "depth": int(family[2])}
    entry = models.NETS[model["name"]]
    own = (entry.image_size, entry.image_size, entry.channels)
    image = tuple(map(int, size)) if size[0] else own
    batch = int(own_batch or batch)
    if batch < 1 or batch % devices:
        raise names.ConfigError(
            f"batch {batch} is not divisible by {devices} device(s)"
        )
    accepted = names.parameters(entry.module)
    if "image_size" in accepted:
        model["image_size"] = image[0]
    if "hidden" in accepted and image[0] < 64:
        model["hidden"] = (512, 512)  # the usual heads for small images
    model |= {key: value for key, value in fields.items() if key in accepted}
    classes = entry.num_classes if image == own else 10
    case = Case(net, model, image, classes, batch, dtype, devices, dispatch)
    case.summary()
    return case
