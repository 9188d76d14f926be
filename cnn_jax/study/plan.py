"""The plan of a study: one run for each family x depth x seed."""

import copy
import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from cnn_jax import models, names
from cnn_jax.names import ConfigError
from cnn_jax.training import config as run_config
from cnn_jax.training import run_name

KEYS = ("name", "families", "depths", "seeds", "overrides", "run")
LONGEST_NAME = 200  # bytes; file systems allow 255, including depth and seed
DEEPEST = 100_000  # layers; bounds the time needed to refuse a network


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
      family: the arm ('plain', 'residual').
      depth: weight layers.
      seed: of initialisation, example order and augmentation.
      config: the run's complete config.
    """

    family: str
    depth: int
    seed: int
    config: dict[str, Any] = dataclasses.field(hash=False, compare=False)

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        return run_name.build(self.family, self.depth, self.seed)


def expand(config: run_config.Config) -> list[Run]:
    """List the runs of a study, shallow first, with the seeds of a shape together.

    Args:
      config: ``families`` (arm to changes of the run's config; ``name`` sets an arm's
        name if it cannot be a key, such as '0.1'), ``depths``, ``seeds``,
        ``overrides`` ('depth110' to changes) and ``run``.

    Returns:
      One run for every family x depth x seed.

    Raises:
      ConfigError: an invalid key or run, reported before anything compiles.
    """
    config = check(config)
    runs = []
    for depth in config["depths"]:
        for family in families(config):
            of_seeds = {
                seed: config_of(config, family, depth, seed) for seed in config["seeds"]
            }
            for shape in of_seeds.values():
                run_config.check(shape)
            models.create(**shape["model"], num_classes=2)
            runs += [Run(family, depth, *item) for item in of_seeds.items()]
    return runs


def check(config: run_config.Config) -> dict[str, Any]:
    """Refuse a study config of the wrong form; does not check its runs.

    Args:
      config: see `expand`.

    Returns:
      The config as plain dicts.

    Raises:
      ConfigError: one line naming the key, the value and what is expected.
    """
    try:
        config = run_config.as_dict(config)
        json.dumps(config)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"a study's config cannot be saved to a file: {error}; use only numbers, "
            "strings, tuples and sections of these"
        ) from None
    run = config.get("run")
    of_a_run: Mapping[str, Any] = run if isinstance(run, Mapping) else {}
    for key in config:
        if key not in KEYS and key in of_a_run:
            raise ConfigError(
                f"unknown key of a study {key!r} (did you mean --config.run.{key}?)"
            )
        if key not in KEYS:
            raise names.choices("key of a study", key, KEYS)
    missing = [key for key in KEYS if key not in config]
    if missing:
        raise ConfigError(f"a study's config lacks {', '.join(missing)}")
    for key in ("families", "overrides", "run"):
        check_section(f"config.{key}", config[key])
    check_section("config.run.model", config["run"].get("model", {}))
    for key in ("families", "overrides"):
        for name, changes in config[key].items():
            check_section(f"config.{key}.{name}", changes)
    for key in ("families", "depths", "seeds"):
        if not config[key]:
            raise ConfigError(f"config.{key} is empty: the study has no runs")
    for key in ("depths", "seeds"):
        check_integers(f"config.{key}", config[key])
    known = [f"depth{depth}" for depth in config["depths"]]
    for key in config["overrides"]:
        if not re.fullmatch(r"depth[1-9][0-9]{0,8}", key):
            raise names.choices("key of config.overrides", key, known)
    deepest = max([*config["depths"], *map(_depth_of, config["overrides"])])
    if deepest > DEEPEST:
        raise ConfigError(f"a depth must be at most {DEEPEST:,}, got {deepest}")
    _check_name("config.name", config["name"])
    for key, changes in config["families"].items():
        _check_name(f"family {key!r}: its name", changes.get("name", key))
    if len(families(config)) < len(config["families"]):
        arms = config["families"].items()
        called = [changes.get("name", key) for key, changes in arms]
        raise ConfigError(f"two families have the same name: {', '.join(called)}")
    return config


def _depth_of(override: str) -> int:
    return int(override.removeprefix("depth"))


def useless_overrides(config: run_config.Config) -> dict[str, str]:
    """The overrides that no choice of ``depths`` could use.

    Args:
      config: of a study that can be expanded.

    Returns:
      Why no network has that depth, by the key of the override.

    Raises:
      ConfigError: an override with a wrong key, type or value.
    """
    config, found = check(config), {}
    for key in config["overrides"]:
        for family in families(config):
            shape = config_of(config, family, _depth_of(key), config["seeds"][0])
            run_config.check(shape)
            try:
                models.create(**shape["model"], num_classes=2)
            except ConfigError as error:
                found[key] = str(error)
    return found


def check_integers(where: str, values: Any) -> None:
    """Refuse anything but distinct integers, at least one.

    Args:
      where: dotted key of the values, for the message.
      values: a value of any type.

    Raises:
      ConfigError: one line naming the key and the values.
    """
    if not values or not names.has_type(values, tuple[int, ...]):
        raise ConfigError(f"{where} must be integers, got {values!r}")
    if len(set(values)) != len(values):
        raise ConfigError(f"{where} repeats a value: {values!r}")


def families(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The arms of a checked config: name to changes of the run's config."""
    return {
        changes.get("name", key): {k: v for k, v in changes.items() if k != "name"}
        for key, changes in config["families"].items()
    }


def config_of(
    config: Mapping[str, Any], family: str, depth: int, seed: int
) -> dict[str, Any]:
    """The config of one run of a study.

    Args:
      config: the checked config of the study.
      family: the arm's name.
      depth: weight layers.
      seed: of the run.

    Returns:
      The run's complete config.
    """
    shape = merge(config["run"], {"model": {"depth": depth}})
    shape = merge(shape, families(config)[family])
    shape = merge(shape, config["overrides"].get(f"depth{depth}", {}))
    return {**shape, "seed": seed}


# Levels of sections in a study's config.
DEEPEST_SECTION = 32


def check_section(where: str, value: Any) -> None:
    """Refuse what is not a section with string keys, at any level.

    Args:
      where: its place in the config, for the message.
      value: the section.

    Raises:
      ConfigError: not a section, a key that is no string, or too many levels.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where} must be a section, got {value!r} ({type(value).__name__})"
        )
    if where.count(".") > DEEPEST_SECTION:  # also a section that holds itself
        raise ConfigError(
            f"{where.partition('.')[0]} must not nest sections more than "
            f"{DEEPEST_SECTION} levels deep"
        )
    for key, inner in value.items():
        if not isinstance(key, str):
            raise ConfigError(f"{where}: keys must be strings, got {key!r}")
        if isinstance(inner, Mapping):
            check_section(f"{where}.{key}", inner)


def _check_name(where: str, name: Any) -> None:
    """Refuse a name that is not valid for a directory."""
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or not 0 < len(name.encode()) <= LONGEST_NAME
        or "/" in name
        or name[:1] == "."
    ):
        raise ConfigError(
            f"{where} must be a valid folder name: a string of 1 to {LONGEST_NAME} "
            f"bytes without a slash or a leading dot, got {name!r}"
        )


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` with ``changes`` merged in, section by section."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged
