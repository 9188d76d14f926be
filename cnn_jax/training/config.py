"""The schema of a run's config, checked before anything compiles.

A config is an `ml_collections.ConfigDict` of literals. A section with a ``name``
describes a call (see `cnn_jax.names`): the callable's signature determines the
section's other keys. The program supplies the ``SUPPLIED`` arguments itself.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import ml_collections
import numpy as np

from cnn_jax import models, names
from cnn_jax.data import augment, mixing, preprocess
from cnn_jax.names import ConfigError
from cnn_jax.training import hosts, losses, optimizer, schedule, writers

Config: TypeAlias = Mapping[str, Any] | ml_collections.ConfigDict

# Required keys and their types. A `dict` is a section.
KEYS: dict[str, type] = {
    "seed": int,  # random seed of initialisation, example order and augmentation
    "model": dict,
    "loss": dict,
    "dataset": dict,
    "preprocess": dict,
    "augment": dict,
    "optimizer": dict,
    "schedule": dict,
    "warmup": dict,
    "batch_size": int,  # images per step, over all devices
    "eval_batch_size": int,  # images per evaluation batch, over all devices
    "steps": int,  # optimizer steps in the run
    "steps_per_execution": int,  # maximum number of steps per call to the devices
    "log_every": int,  # steps between rows of the running training error
    "eval_every": int,  # steps between evaluations; 0: only after the last step
    "checkpoint_every": int,  # steps between checkpoints; 0: only after the last step
    "parallel": dict,
}
# Optional keys, each with the value that disables it.
OPTIONAL: dict[str, Any] = {
    "clip_norm": 0.0,  # maximum norm of the gradient
    "ema_decay": 0.0,  # decay rate of the weights' moving average
    "mix": {},  # a section of `cnn_jax.data.mixing`
    "log": {},  # 'writers': see `cnn_jax.training.writers`
}
LOG: dict[str, type] = {"writers": tuple}
PARALLEL: dict[str, type] = {
    "mode": str,  # 'pmap' or 'shard_map'
    "devices": int,  # number of devices, over all hosts; 0 for all
    "hosts": str,  # 'one', 'cluster' or 'INDEX/COUNT@ADDRESS:PORT'
    "host_timeout": int,  # seconds after which a silent host counts as lost
    "bn_group_size": int,  # images that share BN statistics; 0: per device
}
POSITIVE = (
    "batch_size",
    "eval_batch_size",
    "steps",
    "steps_per_execution",
    "log_every",
)
NOT_NEGATIVE = ("seed", "eval_every", "checkpoint_every")
LARGEST_SEED = 2**32 - 1
INT32, LARGEST_FLOAT = np.iinfo(np.int32), float(np.finfo(np.float32).max)
# Larger integers give programs that no compiler can handle. LARGEST limits numbers
# of layers and loop iterations, LARGEST_SIDES channels, units and image sides.
LARGEST = {
    **dict.fromkeys(("depth", "stage_sizes"), 10_000),
    **dict.fromkeys(("radius", "reach", "max_length"), 2**10),
}
LARGEST_SIDES = {
    "dataset": 2**31,
    "model": 2**16,
    "preprocess": 2**15,
    "augment": 2**15,
}
LONGEST_TIMEOUT = 10**6  # seconds, 11 days
DEEPEST = 16  # nesting levels of sections and tuples

TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "model": models.TABLE,
    "loss": losses.LOSSES,
    "preprocess": preprocess.TABLE,
    "augment": augment.TABLE,
    "optimizer": optimizer.OPTIMIZERS,
    "schedule": schedule.SCHEDULES,
    "mix": mixing.TABLE,
}
SUPPLIED = {
    "model": ("num_classes", "norm", "conv"),
    "loss": ("outputs", "batch"),
    "preprocess": ("statistics",),
    "augment": ("statistics",),
    "optimizer": ("learning_rate",),
    "schedule": ("batch_size",),
}


def check(config: Config) -> None:
    """Refuse a config with a missing, misspelt or mistyped key.

    Args:
      config: a run's config.

    Raises:
      ConfigError: one line naming the key, the value and what is expected.
    """
    config = as_dict(config)
    check_values("config", config)
    allowed = {key: type(value) for key, value in OPTIONAL.items()}
    _check_keys("config", config, KEYS, allowed)
    for section, table in TABLES.items():
        fields = config[section] if section in KEYS else option(config, section)
        if section in OPTIONAL and not fields:
            continue
        if "name" not in fields:
            raise ConfigError(
                f"config.{section} needs a 'name'; choices: {', '.join(table)}"
            )
        if section == "optimizer":
            optimizer.check_takes_rate(fields)
        target = names.resolve(section, fields["name"], table)
        given = {key: value for key, value in fields.items() if key != "name"}
        kind = f"{section} {fields['name']!r}"
        if section == "model" and "norm" in names.parameters(target):
            models.norm_of(given.pop("norm", "batch"))
        names.check_fields(kind, target, given, SUPPLIED.get(section, ()))
        if section in LARGEST_SIDES:
            _check_sizes(f"config.{section}", given, LARGEST_SIDES[section])
    _check_sizes("config.dataset", config["dataset"], LARGEST_SIDES["dataset"])
    if "name" not in config["dataset"]:
        raise ConfigError("config.dataset needs a 'name'")
    _check_keys("config.warmup", config["warmup"], schedule.Warmup.__annotations__)
    _check_keys("config.parallel", config["parallel"], PARALLEL)
    if option(config, "log"):
        _check_keys("config.log", config["log"], LOG)
        writers.check(config["log"]["writers"])
    placing = config["parallel"]
    if placing["hosts"] != hosts.ONE:
        hosts.parse(placing["hosts"])
    if not 1 <= placing["host_timeout"] <= LONGEST_TIMEOUT:
        raise ConfigError(
            "config.parallel.host_timeout must be positive and at most "
            f"{LONGEST_TIMEOUT}, got {placing['host_timeout']}"
        )
    for key in POSITIVE:
        if config[key] < 1:
            raise ConfigError(f"config.{key} must be positive, got {config[key]}")
    for key in NOT_NEGATIVE:
        if config[key] < 0:
            raise ConfigError(f"config.{key} must not be negative, got {config[key]}")
    if not 0 <= option(config, "clip_norm") < math.inf:
        raise ConfigError(
            "config.clip_norm must be finite and not negative, got "
            f"{config['clip_norm']}"
        )
    if not 0 <= option(config, "ema_decay") < 1:
        raise ConfigError(f"config.ema_decay {config['ema_decay']} is not in [0, 1)")
    if option(config, "mix") and config["loss"]["name"] == "strings":
        raise ConfigError("config.mix needs class labels; loss 'strings' has none")
    if config["seed"] > LARGEST_SEED:
        raise ConfigError(
            f"config.seed must not exceed {LARGEST_SEED}, got {config['seed']}"
        )
    if not 0 <= config["warmup"]["rate"] < math.inf:
        raise ConfigError(
            "config.warmup.rate must be finite and not negative, got "
            f"{config['warmup']['rate']}"
        )
    if not 0 <= config["warmup"]["until_train_error"] <= 1:
        raise ConfigError(
            "config.warmup.until_train_error must be a fraction of the examples, got "
            f"{config['warmup']['until_train_error']}"
        )


def option(config: Config, key: str) -> Any:
    """The value of a key in `OPTIONAL`, or its default if the config lacks it."""
    return config.get(key, OPTIONAL[key])


def check_values(where: str, value: Any, depth: int = 0) -> None:
    """Refuse values that no run can use, anywhere in a config.

    Devices count in int32 and compute in float32 (seeds are uint32).
    ``config.json`` holds only numbers, strings, lists and sections with string keys.

    Args:
      where: dotted key of the value, for the message.
      value: a value of any type.
      depth: nesting level of the value in the config.

    Raises:
      ConfigError: one line naming the key and the permitted values.
    """
    if depth > DEEPEST:
        raise ConfigError(f"config must not be nested more than {DEEPEST} levels deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{where}: keys must be strings, got {key!r:.60}")
            check_values(f"{where}.{key}", inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_values(where, inner, depth + 1)
    elif isinstance(value, bool | str | None):
        pass
    elif isinstance(value, int):
        largest = LARGEST_SEED if where.endswith("seed") else INT32.max
        if not INT32.min <= value <= largest:
            # Python refuses to print integers of thousands of digits.
            shown = value if abs(value) < 2**70 else f"one of {value.bit_length()} bits"
            raise ConfigError(
                f"{where} must be an integer from {INT32.min} to {largest}, got {shown}"
            )
    elif isinstance(value, float):
        if not math.isfinite(value) or abs(value) > LARGEST_FLOAT:
            raise ConfigError(f"{where} must be representable in float32, got {value}")
        if value and not np.float32(value):
            raise ConfigError(f"{where} {value} underflows to 0 in float32; write 0")
    else:
        raise ConfigError(
            f"{where} must be a number, string, tuple or section, got a "
            f"{type(value).__name__}"
        )


def _check_sizes(where: str, value: Any, largest: int) -> None:
    """Refuse integers too large for any layer size or number of images."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_sizes(f"{where}.{key}", inner, LARGEST.get(key, largest))
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_sizes(where, inner, largest)
    elif isinstance(value, int) and not where.endswith("seed") and abs(value) > largest:
        raise ConfigError(f"{where} must not exceed {largest}, got {value}")


def as_dict(config: Config) -> dict[str, Any]:
    """The config as plain dicts, the form stored in ``config.json``."""
    if isinstance(config, ml_collections.ConfigDict):
        return config.to_dict()
    return dict(config)


def _check_keys(
    where: str,
    section: Mapping[str, Any],
    keys: Mapping[str, type],
    optional: Mapping[str, type] = MappingProxyType({}),
) -> None:
    known = {**keys, **optional}
    for key, value in section.items():
        if key not in known:
            raise names.choices(f"key of {where}", key, sorted(known))
        kind = known[key]
        is_section = isinstance(value, Mapping)
        if is_section != (kind is dict) or not names.has_type(value, kind):
            expected = "a section" if kind is dict else kind.__name__
            raise ConfigError(
                f"{where}.{key} must be {expected}, got {value!r} "
                f"({type(value).__name__})"
            )
    missing = [key for key in keys if key not in section]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
