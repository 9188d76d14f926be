"""The runnable form of a config: data, network and compiled steps of one run.

The constructor checks everything that can be checked before compiling. The steps
do not depend on the seed, so one program trains any number of seeds.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models, names
from cnn_jax.data import augment, mixing, preprocess, sources
from cnn_jax.data.facts import Facts
from cnn_jax.data.item import Split
from cnn_jax.graphs import Graph
from cnn_jax.models import layout
from cnn_jax.training import config as run_config
from cnn_jax.training import (
    feed,
    hosts,
    losses,
    memory,
    optimizer,
    schedule,
    state,
    steps,
)
from cnn_jax.training.config_keys import PLACES, flatten
from cnn_jax.training.parallel import Devices

# Evaluation batches in flight before the oldest is read.
IN_FLIGHT = 2
# Keys that may differ between hosts.
OWN_KEYS = (*PLACES, "dataset.stream.workers", "parallel.hosts")


class Program:
    """Data, network, optimizer and compiled steps that a config describes.

    Args:
      config: a run's config (see `cnn_jax.training.config`).
      source: the data, if the caller has opened it already.

    Attributes:
      config: the config as plain dicts.
      source: the source of batches.
      statistics: mean and deviation of the training images.
      model: the network with the run's batch-norm groups, unrolled; its variables
        have the layout of host states and checkpoints.
      compiled_model: the same network as the steps compile it, possibly with its
        blocks in loops (see `cnn_jax.models.layout`).
      devices: the devices of the run.
      bn_images: images that share batch-norm statistics.
      has_batch_norm: whether the network has such statistics.
      num_parameters: trainable parameters.
      preprocess: uint8 images to the network's input.
      augment: (key, preprocessed images) to augmented images.
      traces: number of times the train step was traced: 1 once it has run.

    Raises:
      ConfigError: the config cannot be run.
    """

    def __init__(self, config: run_config.Config, source: sources.Source | None = None):
        run_config.check(config)
        self.config = config = run_config.as_dict(config)
        placing = config["parallel"]
        if placing["hosts"] != hosts.ONE and not hosts.joined():
            raise names.ConfigError(
                f"parallel.hosts {placing['hosts']!r}: this command supports one host "
                "only; use python -m experiments.train to train on several"
            )
        self.devices = Devices(placing["mode"], placing["devices"])
        self.devices.check_batch(config["batch_size"], "batch_size")
        self.devices.check_batch(config["eval_batch_size"], "eval_batch_size")
        self.source = source or sources.open_source(
            config["dataset"], hosts.index(), hosts.count()
        )
        finite = not getattr(self.source, "endless", False)
        if finite and config["batch_size"] > self.source.num_train:
            raise names.ConfigError(
                f"config.batch_size {config['batch_size']} is larger than the training "
                f"set of {self.source.num_train:,} images: a batch would repeat some "
                "of them"
            )
        self.bn_images = (
            placing["bn_group_size"] or config["batch_size"] // self.devices.count
        )
        self.compiled_model = self._model(placing["bn_group_size"])
        self.model = layout.unrolled(self.compiled_model)
        self.optimizer = optimizer.build(
            config["optimizer"], run_config.option(config, "clip_norm")
        )
        self.schedule = names.build(
            "schedule",
            config["schedule"],
            schedule.SCHEDULES,
            batch_size=config["batch_size"],
        )
        self.warmup = schedule.Warmup(**config["warmup"])
        statistics = self.statistics = self.source.statistics()
        self.preprocess = preprocess.build(config["preprocess"], statistics)
        self.augment = augment.build(config["augment"], statistics)
        mix = run_config.option(config, "mix")
        self.mix = names.build("mix", mix, mixing.TABLE) if mix else None
        self.ema_decay = run_config.option(config, "ema_decay")
        self.image_shape = self._shape_after_preprocessing()
        memory.check_images(
            config, self.image_shape, self.augment, self.devices.devices
        )
        self.num_parameters = self._check_model()
        memory.check_parameters(self.num_parameters, self.devices.devices)
        self.traces = 0
        if hosts.joined():
            hosts.check_equal(
                {
                    "the config": repr(_of_all_hosts(config)).encode(),
                    "the data": self.source.fingerprint.encode(),
                    "the mean and standard deviation of the data": b"".join(
                        np.asarray(part).tobytes()
                        for part in dataclasses.astuple(statistics)
                    ),
                }
            )

    def initial_state(self, seed: int) -> state.TrainState:
        """The initial state of a seed, on the host, in the unrolled layout."""
        return jax.device_get(
            state.create_state(
                self.model,
                self.optimizer(self.schedule(jnp.int32(0))),
                self.image_shape,
                seed,
                warming=self.warmup.until_train_error > 0,
                averaged=self.ema_decay > 0,
            )
        )

    def place(self, host: state.TrainState) -> state.TrainState:
        """Copy a host state to the devices, in the layout that the steps take."""
        return self.devices.replicate(layout.stack(host, self.compiled_model))

    def fetch(self, state: state.TrainState) -> state.TrainState:
        """Copy a device state back to the host: the inverse of `place`."""
        return layout.unroll(self.devices.fetch(state), self.compiled_model)

    @functools.cached_property
    def facts(self) -> Facts:
        """The facts about the data that the network depends on."""
        return Facts.of(self.source, self.statistics)

    @functools.cached_property
    def resident(self) -> Any:
        """The arrays that stay on the devices for the whole run."""
        return self.devices.replicate(self.source.resident())

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        """Compiled ``(state, resident, item) -> (state, sums)``; donates the state."""
        return self.devices.compile(self._counted(self._step()), donate_state=True)

    @functools.cached_property
    def train_steps(self) -> Callable[..., Any]:
        """The compiled steps of a dispatch (see `steps.repeat`); donates the state."""
        many = steps.repeat(self._step(), feed.longest(self.config))
        return self.devices.compile(self._counted(many), donate_state=True)

    def train(self, state: Any, dispatch: feed.Dispatch) -> tuple[Any, Any]:
        """Run the steps of a dispatch.

        Args:
          state: a `TrainState` on the devices (see `place`); its buffers are donated.
          dispatch: from `feed.feed`.

        Returns:
          The new state, and the sums with one entry per step along the first axis.
          Both are on the devices and may still be computing.
        """
        count = self.devices.replicate(np.int32(dispatch.count))
        return self.train_steps(state, (self.resident, count), dispatch.items)

    def _step(self) -> steps.TrainStep:
        return steps.make_train_step(
            self.compiled_model,
            self.loss,
            self.source.take,
            self.preprocess,
            self.augment,
            self.optimizer,
            self.schedule,
            self.warmup,
            self.errors,
            self.mix,
            self.ema_decay,
        )

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.traces += 1
            return step(*arguments)

        return counted

    @functools.cached_property
    def eval_step(self) -> Callable[..., Any]:
        """Compiled ``((params, batch_stats), resident, item) -> sums``."""
        step = steps.make_eval_step(
            self.compiled_model,
            self.loss,
            self.source.take,
            self.preprocess,
            self.errors,
        )
        return self.devices.compile(step, donate_state=False)

    def evaluate(
        self,
        state: Any,
        split: Split,
        between: Callable[[], None] = lambda: None,
        averaged: bool = False,
    ) -> dict[str, float]:
        """Loss and error over every example of a split, in evaluation mode.

        Args:
          state: a `TrainState` on the devices (see `place`).
          split: 'train' or 'test'.
          between: called before each batch; may raise to abort the evaluation.
          averaged: evaluate the moving average of the weights (``ema_decay``).

        Returns:
          'loss' (mean) and 'error' (a fraction), each example counted once.
        """
        weights = (state.params, state.batch_stats)
        if averaged:
            weights = (state.average["params"], state.average["batch_stats"])
        batches = self.source.eval_batches(split, self.config["eval_batch_size"])
        totals = dict.fromkeys(("loss", "error", "count"), 0.0)
        pending: collections.deque[Any] = collections.deque()

        def read_oldest() -> None:
            for key, value in self.devices.fetch(pending.popleft()).items():
                totals[key] += float(value)

        for item in batches:
            between()
            item = self.devices.split(item)
            pending.append(self.eval_step(weights, self.resident, item))
            # A stream's batches are large, so keep only a few on the device.
            if len(pending) > IN_FLIGHT:
                read_oldest()
        while pending:
            read_oldest()
        return {key: totals[key] / totals["count"] for key in ("loss", "error")}

    def _model(self, bn_group_size: int) -> nn.Module:
        section = dict(self.config["model"])
        supplied: dict[str, Any] = {"num_classes": self.source.num_classes}
        target = names.resolve("model", section["name"], models.TABLE)
        norm = self.devices.norm(self.config["batch_size"], bn_group_size)
        if "norm" in names.parameters(target):
            supplied["norm"] = models.norm_of(section.pop("norm", "batch"), norm)
        model = models.create(**section, **supplied)
        # User-defined blocks and optimizers may need to see each layer separately.
        parts = {"model": self.config["model"], "optimizer": self.config["optimizer"]}
        texts = [*flatten(parts).values()]
        foreign = any(isinstance(text, str) and ":" in text for text in texts)
        if foreign or not section.keys().isdisjoint(layout.FIELDS):
            return model
        return layout.fastest(model, jax.default_backend())

    def loss(self, outputs: Any, batch: Any) -> Any:
        """The config's loss: (outputs, batch) to per-example losses."""
        section = {k: v for k, v in self.config["loss"].items() if k != "name"}
        loss = names.resolve("loss", self.config["loss"]["name"], losses.LOSSES)
        return loss(outputs, batch, **section)

    @property
    def errors(self) -> steps.Loss:
        """The error function of the loss: 1 for each wrong example, else 0."""
        loss = names.resolve("loss", self.config["loss"]["name"], losses.LOSSES)
        return getattr(loss, "errors", steps.errors)

    def _shape_after_preprocessing(self) -> tuple[int, int, int]:
        image = jax.ShapeDtypeStruct((1, *self.source.image_shape), jnp.uint8)
        return jax.eval_shape(self.preprocess, image).shape[1:]

    def _check_model(self) -> int:
        """Trace the network once, so that a shape mismatch fails within seconds."""
        # Not `init`, which traces every block even when they run in a loop.
        outputs, variables = jax.eval_shape(
            lambda: self.compiled_model.apply(
                {},
                jnp.zeros((1, *self.image_shape)),
                train=False,
                rngs={"params": jax.random.key(0)},
                mutable=True,
            )
        )
        self.has_batch_norm = bool(variables.get("batch_stats"))
        self._check_loss(outputs)
        name = self.config["optimizer"]["name"]
        if ":" in name:
            optimizer.check_descends(name, self.optimizer, variables["params"])
        leaves = jax.tree.leaves(variables["params"])
        return sum(math.prod(leaf.shape) for leaf in leaves)

    def _check_loss(self, outputs: Any) -> None:
        """Refuse a built-in loss that does not fit the outputs and labels."""
        name = self.config["loss"]["name"]
        if name not in losses.LOSSES:
            return
        wanted = "strings" if name == "strings" else "classes"
        graph = isinstance(outputs, Graph)
        strings = getattr(self.source, "strings", False)
        found = {
            f"model {self.config['model']['name']!r}": "strings"
            if graph
            else "classes",
            f"dataset {self.source.name!r}": "strings" if strings else "classes",
        }
        for what, kind in found.items():
            if kind != wanted:
                raise names.ConfigError(
                    f"{what} provides {kind}, but loss {name!r} needs {wanted}"
                )
        if wanted == "classes":
            shape: tuple[int, ...] = getattr(outputs, "shape", ())
            classes = self.source.num_classes
            if len(shape) != 2 or shape[1] != classes:
                raise names.ConfigError(
                    f"model {self.config['model']['name']!r} has outputs of shape "
                    f"{shape} for one image; loss {name!r} needs (1, {classes})"
                )
            label = jax.ShapeDtypeStruct((1,), jnp.int32)
            jax.eval_shape(self.loss, outputs, {"label": label})


def _of_all_hosts(config: dict[str, Any]) -> dict[str, Any]:
    """The dotted keys and values of a config that all hosts must share."""
    flat = flatten(config)
    return {key: flat[key] for key in sorted(flat) if key not in OWN_KEYS}
