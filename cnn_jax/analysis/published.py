"""Published PyTorch weights as networks of this package, and back.

A network is named as its publisher names it: torchvision's names without a prefix,
others as `timm/resnet50`, `chenyaofo/cifar10_resnet20`, `akamaster/resnet20`
(`cnn_jax.models.families` lists them). A converted file also holds the config and the
preprocessing of the weights, so that `cnn_jax.load_run` can read it.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnn_jax import models, names
from cnn_jax.analysis import exchange
from cnn_jax.data.facts import Facts
from cnn_jax.data.preprocess import Statistics
from cnn_jax.models import families, torchvision, weights
from cnn_jax.training import config as run_config
from cnn_jax.training.program import Program

# Image side, training examples and test examples of the weights' training set.
SETS = {
    "cifar10": (32, 50_000, 10_000),
    "cifar100": (32, 50_000, 10_000),
    "imagenet2012": (224, 1_281_167, 50_000),
}
CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
# Keys that an evaluation ignores; the weights were trained elsewhere.
TRAINING: dict[str, Any] = {
    "seed": 0,
    "loss": {"name": "softmax_cross_entropy"},
    "augment": {"name": "none"},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4},
    "schedule": {"name": "piecewise", "rates": (0.1,), "boundaries": ()},
    "warmup": {"rate": 0.0, "until_train_error": 0.0},
    "batch_size": 128,
    "eval_batch_size": 250,
    "steps": 1,
    "steps_per_execution": 1,
    "log_every": 1,
    "eval_every": 0,
    "checkpoint_every": 0,
    "parallel": {
        "mode": "pmap",
        "devices": 1,
        "hosts": "one",
        "host_timeout": 1,
        "bn_group_size": 0,
    },
}
# Preprocessing of ImageNet's images in torchvision's evaluation.
PICTURES: dict[str, Any] = {
    "train_split": "train",
    "test_split": "validation",
    "stream": {
        "train": {"name": "inception", "size": 224},
        "test": {"name": "center", "size": 224, "shorter": 256},
    },
}


def read(name: str, source: str) -> tuple[nn.Module, dict[str, Any], bool]:
    """Read a file of weights in either form.

    Args:
      name: the network's name, as its publisher gives it.
      source: file of a state_dict, or of variables (see `weights.flatten`).

    Returns:
      The network, its variables, and whether the file holds variables rather than a
      state_dict.

    Raises:
      ConfigError: unknown network, unreadable file, or one whose config describes
        another network.
      ValueError: the tensors are not those of the network.
    """
    source = os.fspath(source)
    families.resolve(name)
    tensors = weights.read_tensors(source)
    ours = any(key.startswith("params/") for key in tensors)
    last = families.head(name)
    if ours:
        last = "params/head/bias" if "resnet" in name else "params/fc8/bias"
    if last not in tensors:
        raise ValueError(f"{source}: not weights of {name}: {last!r} is missing")
    module = families.create(name, num_classes=len(tensors[last]))
    if not ours:
        return module, families.read(name, module, tensors), False
    own = {k: tensors[k] for k in tensors if not k.startswith(exchange.DATA)}
    stem = own.get("/".join(("params", *families.first_layer(module), "kernel")))
    channels = stem.shape[2] if stem is not None and stem.ndim == 4 else 3
    zeros = weights.flatten(torchvision.zero_variables(module, channels))
    found, expected = ({k: v.shape for k, v in flat.items()} for flat in (own, zeros))
    weights.check_shapes(f"a file of variables of {name}", found, expected)
    if source.endswith(exchange.SUFFIX):
        words = weights.read_metadata(source)
        if "config" in words:
            module = _described(source, words["config"], module.num_classes)
            families.check(name, module)
    return module, weights.unflatten(own), True


def _described(source: str, config: str, num_classes: int) -> nn.Module:
    """The network that the config in a file describes."""
    try:
        return models.create(num_classes=num_classes, **json.loads(config)["model"])
    except names.ConfigError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise names.ConfigError(
            f"weights {source!r}: its config describes no network"
        ) from error


def config_of(name: str) -> dict[str, Any]:
    """The config of a run that would train a published network."""
    found = families.resolve(name)
    dataset = {"name": found.dataset, "data_dir": ""}
    if found.dataset == "imagenet2012":
        dataset |= PICTURES
    constants = {"mean": found.mean, "std": found.std}
    return {
        **TRAINING,
        "model": dict(found.model),
        "dataset": dataset,
        "preprocess": {"name": "standardize", **constants},
    }


def facts_of(name: str, num_classes: int) -> Facts:
    """The facts of the dataset that a published network was trained on."""
    found = families.resolve(name)
    side, num_train, num_test = SETS[found.dataset]
    shape = (side, side, 3)
    std = np.asarray(found.std, np.float32)
    known = found.dataset == "cifar10" and num_classes == len(CIFAR10)
    return Facts(
        name=found.dataset,
        num_classes=num_classes,
        image_shape=shape,
        num_train=num_train,
        num_test=num_test,
        evaluated="test",
        fingerprint="",
        class_names=CIFAR10 if known else (),
        strings=False,
        endless=False,
        statistics=Statistics(
            np.broadcast_to(np.asarray(found.mean, np.float32), shape),
            np.broadcast_to(std, shape),
            np.diag(np.square(std)),
        ),
    )


def convert(name: str, source: str, target: str) -> dict[str, Any]:
    """Convert a file (see `read`) to the other form and write it to ``target``.

    Returns:
      A printable summary: 'wrote', 'classes', 'tensors', 'parameters'.

    Raises:
      ConfigError: as `read`, or ``target`` cannot be written.
      ValueError: the tensors are not those of the network.
    """
    module, variables, ours = read(name, source)
    flat = weights.flatten(variables)
    if ours:
        written = families.write(name, module, variables)
        weights.write_tensors(target, written)
    else:
        written = flat
        facts = facts_of(name, module.num_classes)
        family = "residual" if "resnet" in name else module.__class__.__name__
        depth = getattr(module, "depth", 0)
        label = {"family": family, "depth": depth, "seed": 0, "step": 0}
        exchange.write(target, config_of(name), facts, variables, label)
    return {
        "wrote": f"{target} ({'PyTorch' if ours else 'cnn_jax'} names)",
        "classes": module.num_classes,
        "tensors": len(written),
        "parameters": sum(flat[key].size for key in flat if key.startswith("params/")),
    }


def evaluate(
    name: str, source: str, config: Mapping[str, Any], data_dir: str = ""
) -> dict[str, float]:
    """Measure the test loss and error of weights.

    Args:
      name: the network's name, as its publisher gives it.
      source: as in `read`.
      config: a run's config; ``name`` replaces its network.
      data_dir: directory of the config's dataset; '' for the config's own value.

    Returns:
      'test_loss' (nats) and 'test_error' (a fraction).

    Raises:
      ConfigError: the config cannot be run, or its image shape or number of classes
        differs from the network's.
      ValueError: the tensors are not those of the network.
    """
    run_config.check(config)
    dataset = {**config["dataset"], **({"data_dir": data_dir} if data_dir else {})}
    model = dict(families.resolve(name).model)
    program = Program({**config, "model": model, "dataset": dataset})
    _, variables, _ = read(name, source)
    state = program.initial_state(0)
    loaded = state.replace(
        params=variables["params"], batch_stats=variables.get("batch_stats", {})
    )
    pairs = zip(jax.tree.leaves(loaded), jax.tree.leaves(state), strict=True)
    for found, expected in pairs:
        if found.shape != expected.shape:
            raise names.ConfigError(
                f"{source}: a tensor has shape {found.shape}, but {name} with "
                f"{program.source.num_classes} classes needs {expected.shape}"
            )
    totals = program.evaluate(program.place(loaded), "test")
    return {f"test_{key}": value for key, value in totals.items()}
