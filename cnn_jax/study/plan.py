"""The plan of a study: family x depth x seed, each a run of its own."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from cnn_jax import names
from cnn_jax.names import ConfigError
from cnn_jax.train import config as run_config

KEYS = ("name", "families", "depths", "seeds", "overrides", "run")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
      family: the arm ('plain', 'residual').
      depth: weight layers.
      seed: of parameters, order and augmentation.
      config: the run's whole config.
    """

    family: str
    depth: int
    seed: int
    config: dict[str, Any] = dataclasses.field(hash=False, compare=False)

    @property
    def name(self) -> str:
        """Its directory's name."""
        return f"{self.family}-{self.depth}-seed{self.seed}"


def expand(config: run_config.Config) -> list[Run]:
    """The runs of a study, shallow first, seeds of a shape together.

    Args:
      config: ``families`` (arm to changes of the run's config), ``depths``,
        ``seeds``, ``overrides`` ('depth110' to changes) and ``run``.

    Returns:
      Every family x depth x seed.

    Raises:
      ConfigError: a key or a run that cannot be; nothing has compiled yet.
    """
    config = run_config.as_dict(config)
    of_a_run = config.get("run") if isinstance(config.get("run"), Mapping) else {}
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
    for key in ("families", "depths", "seeds"):
        if not config[key]:
            raise ConfigError(f"config.{key} is empty: the study has no runs")
    for key in ("depths", "seeds"):
        if not names.has_type(config[key], tuple[int, ...]):
            raise ConfigError(f"config.{key} must be integers, got {config[key]!r}")
        if len(set(config[key])) != len(config[key]):
            raise ConfigError(f"config.{key} repeats a value: {config[key]!r}")
    known = [f"depth{depth}" for depth in config["depths"]]
    for key in config["overrides"]:
        if not key.removeprefix("depth").isdigit():
            raise names.choices("key of config.overrides", key, known)
    runs = []
    for depth in config["depths"]:
        for family, changes in config["families"].items():
            shape = merge(config["run"], {"model": {"depth": depth}})
            shape = merge(shape, changes)
            shape = merge(shape, config["overrides"].get(f"depth{depth}", {}))
            run_config.check(shape)
            names.build(
                "model", shape["model"], run_config.TABLES["model"], num_classes=2
            )
            runs += [
                Run(family, depth, seed, {**shape, "seed": seed})
                for seed in config["seeds"]
            ]
    return runs


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` with ``changes``, section by section."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged
