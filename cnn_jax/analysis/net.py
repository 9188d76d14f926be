"""A trained network: model, variables, predictions and batches.

The dataset is opened only when batches are requested: the run directory holds the
facts about it that a network needs (see `cnn_jax.data.facts`).
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.data import given_pictures
from cnn_jax.data.item import Split
from cnn_jax.data.preprocess import Preprocess
from cnn_jax.data.sources import central_view
from cnn_jax.names import ConfigError
from cnn_jax.training.program import Program

Variables = Mapping[str, Any]
Batch = Mapping[str, jax.Array]

# Predictions use one fixed batch size, so that one program serves any number of
# images. It is chosen by the number of pixels, within bounds.
BATCH_PIXELS, SMALLEST_BATCH, LARGEST_BATCH = 2**17, 8, 128


def masked_mean(values: Float[Array, " batch"], batch: Batch) -> Float[Array, ""]:
    """The mean over the real examples of a batch."""
    real = batch["mask"] > 0
    return jnp.where(real, values, 0.0).sum() / batch["mask"].sum()


@dataclasses.dataclass(frozen=True)
class Batches:
    """Evaluation batches of a split; can be iterated over any number of times.

    Of ten-crop evaluation they hold the central crop.

    Attributes:
      program: provides the data and the preprocessing.
      split: 'train' or 'test'.
      images: maximum number of images; 0 for all.
    """

    program: Program
    split: Split
    images: int = 0

    def __iter__(self) -> Iterator[Batch]:
        source = self.program.source
        resident = jax.device_put(source.resident())
        there = source.num_train if self.split == "train" else source.num_test
        size = min(self.program.config["eval_batch_size"], self.images or there, there)
        items = source.eval_batches(self.split, size)
        last = -(-self.images // size) if self.images else None
        for number, item in enumerate(itertools.islice(items, last)):
            batch = dict(_prepare(self.program, resident, item))
            left = self.images - number * size if self.images else size
            batch["mask"] = batch["mask"].at[left:].set(0)
            yield batch


@dataclasses.dataclass(frozen=True)
class Net:
    """A network of a run, at one step of its training.

    Attributes:
      family: the arm of a study; else 'plain', 'residual', or the model's name in
        the config.
      depth: weight layers.
      seed: of the run.
      step: optimizer steps taken.
      program: the run's program on one device, shared by the seeds of a shape.
      variables: 'params' and 'batch_stats', on the host.
    """

    family: str
    depth: int
    seed: int
    step: int
    program: Program = dataclasses.field(repr=False)
    variables: Variables = dataclasses.field(repr=False)

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.program.model

    @property
    def config(self) -> dict[str, Any]:
        """The run's config."""
        return self.program.config

    @property
    def preprocess(self) -> Preprocess:
        """Function from uint8 images (n, h, w, c) to the network's input."""
        return self.program.preprocess

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; their numbers if the dataset has no names."""
        facts = self.program.facts
        return facts.class_names or tuple(map(str, range(facts.num_classes)))

    def predict(self, images: Any) -> np.ndarray:
        """Predict the classes of raw images.

        Args:
          images: uint8 (n, height, width, channels), pixels 0..255, of the run's
            image shape; any number of images.

        Returns:
          Logits, float32 (n, classes); the largest is the predicted class.

        Raises:
          ConfigError: wrong type or shape, or a network that reads strings.
        """
        facts = self.program.facts
        if facts.strings:
            raise ConfigError("the network reads strings of digits and has no classes")
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[1:] != facts.image_shape:
            shape = ", ".join(map(str, facts.image_shape))
            raise ConfigError(
                f"images must be uint8 (n, {shape}) with pixels 0..255, got "
                f"{images.dtype} {images.shape}"
            )
        height, width, _ = facts.image_shape
        size = BATCH_PIXELS // (height * width)
        size = min(max(size, SMALLEST_BATCH), LARGEST_BATCH)
        found = [np.zeros((0, facts.num_classes), np.float32)]
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padded = np.zeros((size, *facts.image_shape), np.uint8)
            padded[: len(part)] = part
            logits = _logits(self.program, self.variables, padded)
            found.append(np.asarray(logits)[: len(part)])
        return np.concatenate(found)

    def read(self, files: Sequence[str | os.PathLike[str]]) -> np.ndarray:
        """Read image files with the preprocessing of the run's test set.

        Args:
          files: paths of the images.

        Returns:
          Images for `predict`, uint8 (n, height, width, channels).

        Raises:
          ConfigError: see `cnn_jax.data.given_pictures.read`.
        """
        shape = self.program.facts.image_shape
        return given_pictures.read(files, shape, self.config["dataset"])

    @property
    def label(self) -> dict[str, Any]:
        """The columns that identify the network in a table."""
        return {
            "family": self.family,
            "depth": self.depth,
            "seed": self.seed,
            "step": self.step,
        }

    def batches(self, split: Split, images: int = 0) -> Batches:
        """Batches in evaluation order.

        Args:
          split: 'train' or 'test'.
          images: maximum number of images; 0 for all.

        Returns:
          An iterable that can be iterated over any number of times.
        """
        return Batches(self.program, split, images)

    def train_batches(self, count: int, start: int = 0) -> list[Batch]:
        """Training batches in the order of the run, without augmentation.

        Args:
          count: number of batches.
          start: step of the first batch.

        Returns:
          Batches of the run's batch size.
        """
        size = self.program.config["batch_size"]
        items = self.program.source.train_batches(self.seed, size, start)
        resident = jax.device_put(self.program.source.resident())
        return [
            _prepare(self.program, resident, item)
            for item, _ in itertools.islice(items, count)
        ]

    def at_initialisation(self) -> "Net":
        """The same network before its first step."""
        return at_initialisation(self.program, self.family, self.depth, self.seed)


def at_initialisation(program: Program, family: str, depth: int, seed: int) -> Net:
    """The network at the initialisation of a seed.

    Args:
      program: of the run.
      family: see `Net`.
      depth: weight layers.
      seed: of the run.

    Returns:
      The network at step 0.
    """
    return Net(family, depth, seed, 0, program, variables(program.initial_state(seed)))


def variables(state: Any) -> Variables:
    """The variables for ``model.apply`` from a `TrainState`."""
    return {"params": state.params, "batch_stats": state.batch_stats}


@functools.partial(jax.jit, static_argnames="program")
def _logits(program: Program, variables: Variables, images: Any) -> Any:
    """The logits of uint8 images."""
    prepared = program.preprocess(images)
    return program.model.apply(variables, prepared, train=False)


@functools.partial(jax.jit, static_argnames="program")
def _prepare(program: Program, resident: Any, item: Any) -> Batch:
    """The network's input batch, from an item of the source."""
    batch = program.source.take(resident, item)
    image = program.preprocess(central_view(batch["image"], batch["mask"]))
    return {"image": image, "label": batch["label"], "mask": batch["mask"]}
