"""Networks from run directories: model, variables, predictions and batches.

The data set is opened when batches are asked for, and not before: what a network
must know of it is in the run directory (see `cnn_jax.data.facts`).
"""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnn_jax.data import sources
from cnn_jax.data.facts import Facts, Recorded
from cnn_jax.data.item import Split
from cnn_jax.data.preprocess import Preprocess
from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint
from cnn_jax.training.checkpoint import CheckpointError
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import (
    BN_IMAGES,
    FINGERPRINT,
    PLUGINS,
    RECORDED,
    RunDirectory,
)

Variables = Mapping[str, Any]
Batch = Mapping[str, jax.Array]

# Predictions are made in batches of one size, so that one program serves any number
# of images: of this many pixels, within bounds.
BATCH_PIXELS, SMALLEST_BATCH, LARGEST_BATCH = 2**17, 8, 128


@dataclasses.dataclass(frozen=True)
class Batches:
    """Evaluation batches of a split, made anew for each pass over them.

    Attributes:
      program: whose data and preprocessing.
      split: 'train' or 'test'.
      images: use this many at most; 0 for all.
    """

    program: Program
    split: Split
    images: int = 0

    def __iter__(self) -> Iterator[Batch]:
        source = self.program.source
        resident = source.resident()
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
      family: the arm of a study; else 'plain', 'residual', or what the config calls
        the model.
      depth: weight layers.
      seed: of the run.
      step: optimizer steps that the variables have seen.
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
        """From uint8 images (n, h, w, c) to what the network takes."""
        return self.program.preprocess

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called: their numbers where nobody said."""
        facts = self.program.facts
        return facts.class_names or tuple(map(str, range(facts.num_classes)))

    def predict(self, images: Any) -> np.ndarray:
        """What the network says of raw images.

        Args:
          images: uint8 (n, height, width, channels) of the run's own shape, pixels
            0..255; as many as you like.

        Returns:
          Logits, float32 (n, classes): the largest is the class.

        Raises:
          ConfigError: other images, or a network that reads strings.
        """
        facts = self.program.facts
        if facts.strings:
            raise ConfigError("the network reads strings of digits, it has no classes")
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

    @property
    def label(self) -> dict[str, Any]:
        """The columns that say which network a row is about."""
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
          images: use this many at most; 0 for all.

        Returns:
          An iterable that can be gone through any number of times.
        """
        return Batches(self.program, split, images)

    def train_batches(self, count: int, start: int = 0) -> list[Batch]:
        """Batches of the run's training, in its order, without augmentation.

        Args:
          count: how many.
          start: step of the first.

        Returns:
          Batches of the run's batch size.
        """
        size = self.program.config["batch_size"]
        items = self.program.source.train_batches(self.seed, size, start)
        resident = self.program.source.resident()
        return [
            _prepare(self.program, resident, item)
            for item, _ in itertools.islice(items, count)
        ]

    def at_initialisation(self) -> "Net":
        """The same network before its first step."""
        return at_initialisation(self.program, self.family, self.depth, self.seed)


def at_initialisation(program: Program, family: str, depth: int, seed: int) -> Net:
    """A network as a run of this seed starts.

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
    """What ``model.apply`` takes, from a `TrainState`."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def program_of(
    directory: str | os.PathLike[str], data_dir: str | os.PathLike[str] = ""
) -> Program:
    """The program of a run, on one device, with the run's batch-norm groups.

    It opens the data when batches are asked for (at once, of runs from before they
    recorded what they needed of it).

    Args:
      directory: of the run.
      data_dir: where its data is now; '' for where the run had it.

    Returns:
      The program; runs that differ by their seed alone can share it.

    Raises:
      ConfigError: no run directory, or one whose config cannot be run here.
    """
    config = _config_of(directory)
    wanted = config.get(FINGERPRINT, "")
    config["dataset"] = dataset_of(directory, data_dir)
    facts = Facts.from_bytes(RunDirectory(directory).data())
    if facts and facts.fingerprint != wanted:
        facts = None
    return program_from(config, facts, os.fspath(directory))


def program_from(config: dict[str, Any], facts: Facts | None, owner: str) -> Program:
    """The program of a config that a run kept, or a file of weights.

    Args:
      config: of the run, perhaps with what `fit` recorded beside it.
      facts: of its data; None to open it.
      owner: who kept them, for messages.

    Returns:
      The program, on one device.

    Raises:
      ConfigError: the config cannot be run here.
    """
    group = config.get(BN_IMAGES, config["parallel"]["bn_group_size"])
    config = {key: config[key] for key in config if key not in (PLUGINS, *RECORDED)}
    config["parallel"] = {
        "mode": "pmap",
        "devices": 1,
        "hosts": "one",
        "host_timeout": 1,
        "bn_group_size": group,
    }
    config = _with_tuples(config)

    def open_data() -> sources.Source:
        return sources.open_source(config["dataset"])

    return Program(config, Recorded(facts, open_data, owner) if facts else None)


def dataset_of(
    directory: str | os.PathLike[str], data_dir: str | os.PathLike[str] = ""
) -> dict[str, Any]:
    """The section of a run's config that names its data (see `program_of`)."""
    section = _with_tuples(_config_of(directory)["dataset"])
    return {**section, "data_dir": os.fspath(data_dir)} if data_dir else section


def data_fingerprint(directory: str | os.PathLike[str]) -> str:
    """What identifies the data that a run was trained on; '' of very old runs."""
    return _config_of(directory).get(FINGERPRINT, "")


def check_data(directory: str | os.PathLike[str], source: Any) -> None:
    """Refuse other data than that which a run was trained on.

    Args:
      directory: of the run.
      source: the data, open.

    Raises:
      ConfigError: its fingerprint is another.
    """
    wanted = data_fingerprint(directory)
    if wanted and source.fingerprint != wanted:
        raise ConfigError(
            f"{directory} was trained on other data: its fingerprint is "
            f"{wanted[:12]}, that of the data there now {source.fingerprint[:12]}; "
            "say with --data_dir where the run's own data is"
        )


def _config_of(directory: str | os.PathLike[str]) -> dict[str, Any]:
    config = RunDirectory(directory).config()
    if config is None:
        raise ConfigError(f"{directory} holds no run (no config.json)")
    return config


def load(directory: str | os.PathLike[str], program: Program | None = None) -> Net:
    """The network of a run at its newest whole checkpoint: the final one, if finished.

    Args:
      directory: of the run.
      program: from `program_of`, where the caller has it already.

    Returns:
      The network.

    Raises:
      ConfigError: not a run, or one of another network or other data than the
        program's.
      CheckpointError: there is no checkpoint, or none is whole.
    """
    place = RunDirectory(directory)
    program = program or program_of(directory)
    config = _config_of(directory)
    if _with_tuples(config["model"]) != _with_tuples(program.config["model"]):
        raise ConfigError(f"{directory} holds another network than the program's")
    check_data(directory, program.source)
    seed = config["seed"]
    template = program.initial_state(seed)
    state = _newest(place.checkpoints, template)
    family, depth = kind(program, directory)
    return Net(family, depth, seed, int(state.step), program, variables(state))


def kind(program: Program, directory: str | os.PathLike[str] = "") -> tuple[str, int]:
    """Family and depth of a program's network.

    Args:
      program: of the run.
      directory: of the run, if there is one.

    Returns:
      The family that a study's run is named after; of others 'plain' or 'residual'
      where the network can have shortcuts, else the model's name in the config. And
      its weight layers, or 0 where it has no such field.
    """
    depth = getattr(program.model, "depth", 0)
    if not isinstance(depth, int):  # a reader of strings calls something else so
        depth = 0
    path = pathlib.Path(directory).absolute()
    arm = re.fullmatch(r"(.+)-(\d+)-seed\d+", path.name)
    if arm and path.parent.name == "runs" and int(arm[2]) == depth:
        return arm[1], depth
    shortcut = getattr(program.model, "shortcut", "")
    family = "plain" if shortcut == "none" else "residual"
    return family if shortcut else program.config["model"]["name"], depth


def fingerprint(directory: str | os.PathLike[str]) -> str:
    """What tells a run's newest checkpoint from any other: a SHA-256.

    It covers the step, the state and the notes saved with it. Among these is how
    long the run has taken, so runs through the same states differ in it too.

    Returns:
      It, as the file's header says; '' where there is no readable checkpoint.
    """
    found = checkpoint.steps(RunDirectory(directory).checkpoints)
    if not found:
        return ""
    with open(found[-1], "rb") as file:
        try:
            return json.loads(file.readline())["sha256"]
        except (ValueError, KeyError, TypeError):
            return ""


def _newest(directory: pathlib.Path, template: Any) -> Any:
    """The newest whole state; the run may be going on, so nothing is moved."""
    complaints = []
    for path in reversed(checkpoint.steps(directory)):
        try:
            return checkpoint.read(path, template)[0]
        except CheckpointError as error:
            complaints.append(str(error))
    reason = "; ".join(complaints) or "there is none"
    raise CheckpointError(f"no usable checkpoint in {directory}: {reason}")


@functools.partial(jax.jit, static_argnames="program")
def _logits(program: Program, variables: Variables, images: Any) -> Any:
    """Of uint8 images."""
    prepared = program.preprocess(images)
    return program.model.apply(variables, prepared, train=False)


@functools.partial(jax.jit, static_argnames="program")
def _prepare(program: Program, resident: Any, item: Any) -> Batch:
    """A batch as the network sees it, from the source's item."""
    batch = program.source.take(resident, item)
    image = program.preprocess(batch["image"])
    if len(image) != len(batch["mask"]):
        raise ConfigError("analyses look at one view of an example; set views to 1")
    return {"image": image, "label": batch["label"], "mask": batch["mask"]}


def _with_tuples(value: Any) -> Any:
    """What JSON holds as lists, as tuples: fields of a network must be hashable."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
