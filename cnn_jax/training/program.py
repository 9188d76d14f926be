"""A config made runnable: data, network and compiled steps of one run.

Building checks everything that can be checked before compiling. The steps do
not know the seed, so one program trains any number of seeds.
"""

import collections
import dataclasses
import functools
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
from cnn_jax.training.parallel import Devices
from cnn_jax.training.run_directory import flatten

# Evaluation batches that may be under way before the oldest is read.
IN_FLIGHT = 2
# What may differ from host to host.
OWN_KEYS = ("dataset.data_dir", "dataset.stream.workers", "parallel.hosts")


class Program:
    """Everything a run needs, from its config.

    Args:
      config: a run's config (see `cnn_jax.training.config`).
      source: its data, where the caller has it open already.

    Attributes:
      config: the config as plain dicts.
      source: where batches come from.
      statistics: mean and deviation of its training images.
      model: the network, with the run's batch-norm groups, unrolled: as states on
        the host and checkpoints have it.
      compiled_model: the same as the steps are compiled, perhaps with its blocks in
        loops (see `cnn_jax.models.layout`).
      devices: the devices it trains on.
      bn_images: images that share batch-norm statistics.
      num_parameters: trainable parameters.
      preprocess: uint8 images to what the network takes.
      augment: (key, those) to augmented ones.
      traces: how often the train step was traced: 1 once it has run.

    Raises:
      ConfigError: anything in the config that cannot be run.
    """

    def __init__(self, config: run_config.Config, source: sources.Source | None = None):
        run_config.check(config)
        self.config = config = run_config.as_dict(config)
        placing = config["parallel"]
        if placing["hosts"] != hosts.ONE and not hosts.joined():
            raise names.ConfigError(
                f"parallel.hosts {placing['hosts']!r}: this command trains on one "
                "host; python -m experiments.train trains on several"
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
                f"set of {self.source.num_train:,} images: a batch would hold some of "
                "them twice"
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
                    "mean and deviation of the data": b"".join(
                        np.asarray(part).tobytes()
                        for part in dataclasses.astuple(statistics)
                    ),
                }
            )

    def initial_state(self, seed: int) -> state.TrainState:
        """A fresh state on the host, unrolled, from a seed."""
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
        """A state on the host to the devices, as the steps take it."""
        return self.devices.replicate(layout.stack(host, self.compiled_model))

    def fetch(self, state: state.TrainState) -> state.TrainState:
        """A state of the steps back to the host: `place` undone."""
        return layout.unroll(self.devices.fetch(state), self.compiled_model)

    @functools.cached_property
    def facts(self) -> Facts:
        """What the network must know of its data."""
        return Facts.of(self.source, self.statistics)

    @functools.cached_property
    def resident(self) -> Any:
        """The arrays that stay on the devices for the whole run."""
        return self.devices.replicate(self.source.resident())

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        """Compiled ``(state, resident, item) -> (state, sums)``; eats the state."""
        return self.devices.compile(self._counted(self._step()), donate_state=True)

    @functools.cached_property
    def train_steps(self) -> Callable[..., Any]:
        """The steps of a dispatch, compiled (see `steps.repeat`); eats the state."""
        many = steps.repeat(self._step(), feed.longest(self.config))
        return self.devices.compile(self._counted(many), donate_state=True)

    def train(self, state: Any, dispatch: feed.Dispatch) -> tuple[Any, Any]:
        """Take the steps of a dispatch.

        Args:
          state: a `TrainState` on the devices (see `place`), which is used up.
          dispatch: from `feed.feed`.

        Returns:
          The new state, and the sums of each step along a first axis; both on the
          devices, and perhaps not computed yet.
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
          between: called before each batch; may raise to end it.
          averaged: of the moving average of the weights (``ema_decay``).

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
            # A stream's batches are large: few of them wait on the device.
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
        # Blocks or optimizers of other people may want to see each layer by itself.
        parts = {"model": self.config["model"], "optimizer": self.config["optimizer"]}
        texts = [*flatten(parts).values()]
        foreign = any(isinstance(text, str) and ":" in text for text in texts)
        if foreign or not section.keys().isdisjoint(layout.FIELDS):
            return model
        return layout.fastest(model, jax.default_backend())

    def loss(self, outputs: Any, batch: Any) -> Any:
        """The config's loss: (outputs, batch) to the loss of each example."""
        section = {k: v for k, v in self.config["loss"].items() if k != "name"}
        loss = names.resolve("loss", self.config["loss"]["name"], losses.LOSSES)
        return loss(outputs, batch, **section)

    @property
    def errors(self) -> steps.Loss:
        """What goes with the loss: 1 for each example that is wrong, else 0."""
        loss = names.resolve("loss", self.config["loss"]["name"], losses.LOSSES)
        return getattr(loss, "errors", steps.errors)

    def _shape_after_preprocessing(self) -> tuple[int, int, int]:
        image = jax.ShapeDtypeStruct((1, *self.source.image_shape), jnp.uint8)
        return jax.eval_shape(self.preprocess, image).shape[1:]

    def _check_model(self) -> int:
        """Trace the network once on its input: a misfit fails here, in seconds."""
        # Not `init`, which goes through every block, also of a loop.
        outputs, variables = jax.eval_shape(
            lambda: self.compiled_model.apply(
                {},
                jnp.zeros((1, *self.image_shape)),
                train=False,
                rngs={"params": jax.random.key(0)},
                mutable=True,
            )
        )
        self._check_loss(outputs)
        name = self.config["optimizer"]["name"]
        if ":" in name:
            optimizer.check_descends(name, self.optimizer, variables["params"])
        leaves = jax.tree.leaves(variables["params"])
        return int(sum(np.prod(leaf.shape, dtype=np.int64) for leaf in leaves))

    def _check_loss(self, outputs: Any) -> None:
        """Refuse a loss of this package that does not fit outputs and labels."""
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
                    f"{what} gives {kind}, but loss {name!r} is one of {wanted}"
                )
        if wanted == "classes":
            label = jax.ShapeDtypeStruct((1,), jnp.int32)
            jax.eval_shape(self.loss, outputs, {"label": label})


def _of_all_hosts(config: dict[str, Any]) -> dict[str, Any]:
    """What of a config hosts must agree on, with dotted keys."""
    flat = flatten(config)
    return {key: flat[key] for key in sorted(flat) if key not in OWN_KEYS}
